"""How good is an embedding of m numbers, for every m: one encoder, one recipe, one budget in steps or in FLOPs for all arms.

Three qualities of the same numbers, on unseen data: the arm's own classifier as trained; a linear classifier that the task fits to
every arm's training embeddings with one solver; the label of the nearest training row (cosine, prefixes scaled to unit length).
With C classes a linear classifier needs no more than C - 1 numbers: the sizes below are where arms differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

from .sources import BATCH, Encoder, Part, encoder, split

TABLE = 10_000  # training rows that the task's classifier is fitted to and the nearest row is looked for in
TESTED = {"smoke": 300, "quick": 2000, "full": 10_000}
FITTED = 1000  # rows of a fit in the middle of training, for the curve


@dataclass(frozen=True, eq=False)
class Given:
    train: Part
    validation: Part
    encoder: Encoder


@dataclass(frozen=True, eq=False)
class Hidden:
    test: Part


class Representation(Method):
    """The interface: `represent` gives m numbers for a sample and the class scores made of them.

    An arm says how it is trained (`open`, `loss`) and what it keeps beside the served networks (`extract`); the rest is the same.
    """

    backend = "torch"
    learning_rate = param(0.01, tune=Log(0.001, 0.05))  # AdamW's; the same default and tuning range for every arm

    def represent(self, inputs, m: int):
        """Inputs as in `Part`, on the device -> embeddings [n, m] and class scores [n, classes]. What `Task.call` times."""
        from .represent import represent

        return represent(self, inputs, m)

    training: tuple | None = None  # networks and heads while they are trained; a loaded method has none

    # -- what an arm says ---------------------------------------------------------------------------------------------

    def outputs(self, spec: Encoder) -> tuple[int, ...]:
        """The lengths of the networks that are trained."""
        return (spec.d,)

    def heads(self, spec: Encoder):
        """The module of the classifiers: embeddings [n, d] -> a list of scores. `weights` and `arrays()` as `recipe.Heads`."""
        raise NotImplementedError(f"method '{self.name}' has no heads()")

    def loss(self, nets, heads, inputs, labels):
        """The training loss of one batch."""
        from .recipe import nested_loss

        return nested_loss(heads(nets[0](inputs)), labels)

    def extract(self, nets, heads, given: Given, rows: int) -> dict:
        """Torch arrays by name that are kept beside the networks; `rows` of the training data may be looked at."""
        return heads.arrays()

    def fitting_flops(self, spec: Encoder, rows: int) -> float:
        """FLOPs of `extract` on `rows` rows."""
        return 0.0

    # -- the same for all ---------------------------------------------------------------------------------------------

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def build(self, given: Given, run):
        import torch

        from . import encoder as networks
        from .recipe import optimise

        if not run.budget.steps:
            raise ValueError("representations need a budget in steps or FLOPs, the same for every arm: budget = {steps = 156}")
        spec = given.encoder
        nets = torch.nn.ModuleList(networks.network(spec, out, run.seed, run.device) for out in self.outputs(spec))
        heads = self.heads(spec).to(run.device)
        self.training, self.steps = (nets, heads), run.budget.steps
        modules = torch.nn.ModuleList([*nets, heads])
        options = {"steps": run.budget.steps, "learning_rate": self.learning_rate, "seed": run.seed, "run": run}
        for _ in optimise(modules, lambda x, y: self.loss(nets, heads, x, y), given.train, **options):
            yield Step(samples=BATCH)
        self.finish(given, len(given.train))

    def finish(self, given: Given, rows: int) -> None:
        import torch

        from . import encoder as networks

        nets, heads = self.training
        with torch.no_grad():
            arrays = self.extract(nets, heads, given, min(rows, len(given.train)))
            self.hold([networks.served(net) for net in nets], arrays, given)

    def hold(self, nets, arrays, given: Given) -> None:
        from .represent import tables

        self.nets, self.arrays, self.spec, self.rows = nets, arrays, given.encoder, len(given.train)
        self.tables = tables(nets, arrays, given.encoder.sizes)

    def save(self, folder: Path) -> None:
        from ..shared.transformer import store

        nets = {f"net-{i}-{name}": array for i, net in enumerate(self.nets) for name, array in store(net).items()}
        np.savez(Path(folder) / "representation.npz", **nets, **{name: self.run.numpy(a) for name, a in self.arrays.items()})

    def load(self, folder: Path, given: Given) -> None:
        from ..shared.transformer import restore
        from .encoder import empty

        nets = [empty(given.encoder, out, self.run.device) for out in self.outputs(given.encoder)]
        with np.load(Path(folder) / "representation.npz", allow_pickle=False) as file:
            arrays = dict(file)
        for i, net in enumerate(nets):
            prefix = f"net-{i}-"
            restore(net, {name.removeprefix(prefix): arrays.pop(name) for name in list(arrays) if name.startswith(prefix)})
        self.steps = self.run.budget.steps
        self.hold(nets, {name: self.run.put(array) for name, array in arrays.items()}, given)

    def parameters(self) -> int:
        return sum(p.numel() for net in self.nets for p in net.parameters()) + sum(a.numel() for a in self.arrays.values())

    def step_flops(self, given: Given) -> float:
        from .encoder import step_flops

        spec = given.encoder
        weights = self.heads(spec).weights
        return sum(step_flops(spec, out, weights if number == 0 else 0) for number, out in enumerate(self.outputs(spec)))

    def flops(self, phase, case, tally):
        from .encoder import forward_flops

        spec = self.spec
        if phase == "build":
            if not self.steps:
                return None
            given = Given(Part(np.empty(0), np.empty(self.rows)), Part(np.empty(0), np.empty(0)), spec)
            return Flops(self.steps * self.step_flops(given) + self.fitting_flops(spec, self.rows))
        batch, m = case["batch"], case["dims"]
        full = forward_flops(spec, spec.d) + 2 * spec.d * spec.classes
        return Flops(batch * (forward_flops(spec, m) + 2 * m * spec.classes), dense=batch * full, other=batch * m)


class PrefixRepresentations(Task):
    name = "prefix-representations"
    version = 1
    title = "Embeddings that may be cut short: quality at every length"
    interface = Representation
    data = (
        Data("fashion-mnist", {"rows": 10000, "width": 256, "d": 64}, needs=("fashion-mnist",)),
        Data("fashion-mnist-cnn", {"rows": 10000, "width": 16, "d": 64}, needs=("fashion-mnist",)),
        Data("glosses", {"rows": 90000, "width": 256, "d": 64}, needs=("glosses-384",)),
        Data("digits", {"width": 64, "d": 64}),
    )
    cases = (
        Case("dims-2", {"dims": 2, "batch": 64}),
        Case("dims-4", {"dims": 4, "batch": 64}, ("quick", "full")),
        Case("dims-8", {"dims": 8, "batch": 64}),
        Case("dims-16", {"dims": 16, "batch": 64}, ("quick", "full")),
        Case("dims-32", {"dims": 32, "batch": 64}, ("quick", "full")),
        Case("dims-64", {"dims": 64, "batch": 64}),
    )
    metrics = {
        "accuracy": Metric("1", "higher", "sample"),
        "probe-accuracy": Metric("1", "higher", "sample"),
        "nearest-accuracy": Metric("1", "higher", "sample"),
    }
    baselines = ("separate-sizes", "pca-prefix")
    objective = "accuracy"

    def given(self, data, size, seed, prepared) -> Given:
        parts = split(data, size)
        return Given(parts["train"], parts["validation"], encoder(data, parts))

    def hidden(self, data, size, seed, prepared) -> Hidden:
        return Hidden(split(data, size)["test"].first(TESTED[size]))

    def evaluate(self, method, given) -> dict[str, float]:
        """The mean over all sizes of the own classifiers' accuracy, on at most 1,000 validation rows."""
        from .represent import scores_by_size

        if method.training is not None:
            method.finish(given, FITTED)
        part = given.validation.first(1000)
        found = [(scores.argmax(1) == part.labels).mean() for scores in scores_by_size(method, part.inputs).values()]
        return {"accuracy": float(np.mean(found))}

    def batches(self, case, hidden, run) -> list:
        count, batch = min(len(hidden.test) // case["batch"], 8), case["batch"]
        return [run.put(hidden.test.inputs[i * batch : (i + 1) * batch]) for i in range(count)]

    def bad_batches(self, case, hidden, run) -> dict:
        shape = hidden.test.inputs.shape
        return {"inputs of another shape": run.put(np.zeros((4, *(n + 1 for n in shape[1:])), np.float32))}

    def call(self, method, batch, case):
        return method.represent(batch, case["dims"])

    def score(self, method, given, hidden, case, outputs) -> dict:
        from . import judge
        from .represent import represent_all

        m, test = case["dims"], hidden.test
        z, scores = represent_all(method, test.inputs, m)
        for index, output in enumerate(outputs):
            rows = slice(index * case["batch"], (index + 1) * case["batch"])
            for mine, expected in zip(output, (z[rows], scores[rows]), strict=True):
                judge.agree(np.asarray(mine), expected)
        table = given.train.first(TABLE)
        known = represent_all(method, table.inputs, m)[0]
        return {
            "accuracy": (scores.argmax(1) == test.labels).astype(np.float64),
            "probe-accuracy": (judge.probe(known, table.labels, given.encoder.classes, z) == test.labels).astype(np.float64),
            "nearest-accuracy": (table.labels[judge.nearest(known, z)] == test.labels).astype(np.float64),
        }

    def unfair(self, record, other) -> str:
        if record["budget"] != other["budget"]:
            return f"trained under different budgets: {record['budget']} and {other['budget']}"
        return ""


def finite(array: np.ndarray, shape: tuple) -> np.ndarray:
    if array.shape != shape or not np.isfinite(array).all():
        raise Wrong(f"numbers of shape {array.shape} instead of {shape}, or not finite")
    return array
