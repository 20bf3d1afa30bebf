"""A small causal transformer whose attention is the method's: what does it learn in the same steps?

Fairness: every arm gets the same network, first weights, batches, recipe and steps; only what turns q, k, v into an output differs. An
arm that starts from exact attention (Treeformer) does so within its own steps.

next-bytes: bytes of Python sources. retrieval: the first half of a sequence holds `length / 2` different keys with a value each, the
second half the same keys without, in another order; asked is the value. A model that cannot look far back guesses: 1 / values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

BYTES = {"smoke": 60_000, "quick": 2_000_000, "full": 8_000_000}
EVALUATED = {"smoke": 2, "quick": 16, "full": 64}  # batches
BATCHES = 3
VOCABULARY = 128  # of text


@dataclass(frozen=True, eq=False)
class Given:
    """Texts uint8, empty for retrieval, where `keys` and `values` are above 0; the rest as in the data's arguments."""

    train: np.ndarray
    validation: np.ndarray
    d: int
    heads: int
    layers: int
    length: int
    batch: int
    keys: int
    values: int
    batches: int

    @property
    def tokens(self) -> int:
        return self.length * self.batch

    @property
    def vocabulary(self) -> int:
        """Text: bytes. Retrieval: token k (values + 1) + v is key k with value v, and v = values is the blank."""
        return self.keys * (self.values + 1) or VOCABULARY


@dataclass(frozen=True, eq=False)
class Hidden:
    test: np.ndarray
    given: Given
    seed: int


class TrainedAttention(Method):
    """The interface: `core(run)` makes the attention of one layer, a `DifferentiableAttention` that is not built yet.

    `bootstrap` is the share of the steps that is trained with exact attention; the cores are then built on calibration data
    from this network. 0: they are built before the first step, on a network that has learned nothing.
    """

    backend = "torch"
    learning_rate = param(0.002, tune=Log(0.001, 0.02))  # AdamW's; the same default and tuning range for every arm

    bootstrap = 0.0

    def core(self):
        raise TypeError(f"method '{self.name}' has no core()")

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def build(self, given: Given, run):
        from . import quality_training as training

        if not run.budget.steps:
            raise ValueError("trained attention needs a budget in steps, the same for every arm: budget = {steps = 600}")
        if not 0 <= self.bootstrap < 1:
            raise ValueError(f"bootstrap={self.bootstrap} must be 0 or more, below 1")
        self.given = given
        self.net = training.network(given, run)
        for _ in training.train(self, given, run):
            yield Step(samples=given.batch)
        self.net.eval()

    def predict(self, ids):
        """int64 [batch, length] -> logits [batch, length, vocabulary]. What `Task.call` times."""
        import torch

        if ids.dim() != 2 or ids.is_floating_point():
            raise ValueError(f"ids must be integers [batch, length], not {ids.dtype} of shape {tuple(ids.shape)}")
        with torch.no_grad():
            return self.net(ids)

    def parameters(self) -> int:
        from ..shared import transformer

        return transformer.parameter_count(self.net)

    def flops(self, phase, case, tally):
        """The network around the attention, and the attention by its own formula (see attention-forward)."""
        from ..shared.transformer import feed_forward_flops

        if phase == "build":
            return None
        given, n = self.given, case["windows"] * self.given.length
        rest = given.layers * (8.0 * n * given.d**2 + feed_forward_flops(n, given.d, 4 * given.d))
        rest += 2.0 * n * given.d * given.vocabulary
        core = self.net.blocks[0].attention.core
        core.batch = case["windows"]
        one = core.flops("serve", Case("", {"length": given.length}), {k: v / given.layers for k, v in tally.items()})
        parts = {name: getattr(one, name) * given.layers for name in ("executed", "useful", "dense", "other")}
        return Flops(**{name: value + (0.0 if name == "other" else rest) for name, value in parts.items()})


class AttentionQuality(Task):
    """At equal steps: `bits` per byte of unseen text, or per answer of retrieval, and the share of right answers."""

    name = "attention-quality"
    version = 1
    title = "A small transformer trained with another attention"
    interface = TrainedAttention
    phases = ("build", "serve")
    data = (
        Data("next-bytes", {"d": 64, "heads": 4, "layers": 2, "length": 128, "batch": 16}),
        Data("retrieval", {"d": 64, "heads": 2, "layers": 2, "length": 64, "batch": 32, "keys": 64, "values": 16}),
    )
    cases = (Case("window-4", {"windows": 4}),)
    metrics = {"bits": Metric("bit", "lower", "batch"), "retrieval-accuracy": Metric("1", "higher", "batch")}
    baselines = ("sdpa",)
    objective = "bits"
    prepares = ()

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from ..shared import text

        return {"text": text.standard_library(BYTES[size])}

    def given(self, data, size, seed, prepared) -> Given:
        from ..shared import text

        args = {"keys": 0, "values": 0, **data.args}
        names = [name for name in data.args if data.args[name] < 1]
        if names:
            raise ValueError(f"{data}: {', '.join(names)} must be at least 1")
        if data.name == "retrieval" and (args["length"] % 2 or args["length"] // 2 > args["keys"]):
            raise ValueError(f"{data}: length={args['length']} must be even, and at most twice keys={args['keys']}")
        train, validation, _ = text.split(prepared["text"])
        if data.name == "retrieval":
            train = validation = train[:0]
        return Given(train, validation, **args, batches=EVALUATED[size])

    def hidden(self, data, size, seed, prepared) -> Hidden:
        from ..shared import text

        return Hidden(text.split(prepared["text"])[2], self.given(data, size, seed, prepared), seed)

    def evaluate(self, method, given) -> dict[str, float]:
        from . import quality_training as training

        method.net.eval()
        found = training.measured(method.net, given, given.validation, method.run, stream=(0, 2))
        method.net.train()
        return {name: float(np.mean(values)) for name, values in found.items()}

    def batches(self, case, hidden, run) -> list:
        rng = np.random.default_rng((hidden.seed, 3))
        return [run.put(examples(hidden.test, hidden.given, case["windows"], rng)[0]) for _ in range(BATCHES)]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        long = np.zeros((1, hidden.given.length + 1), np.int64)
        return {"a longer window": run.put(long), "numbers for tokens": run.put(np.zeros((1, 4), np.float32))}

    def call(self, method, batch, case):
        return method.predict(batch)

    def items(self, batch, output) -> int:
        return batch.numel()

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        from . import quality_training as training

        if not all(np.isfinite(out).all() for out in outputs):
            raise Wrong("the output holds NaN or infinity")
        return training.measured(method.net, given, hidden.test, method.run, stream=(hidden.seed + 1, 4))

    def unfair(self, record, other) -> str:
        if record["budget"] != other["budget"]:
            return f"trained under different budgets: {record['budget']} and {other['budget']}"
        return ""


def examples(source: np.ndarray, given: Given, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(ids, targets), int64 [count, length]; a target of -100 is not asked for."""
    if not given.keys:
        from ..shared import text

        ids = text.windows(source, count, given.length, rng)
        return ids, np.concatenate((ids[:, 1:], np.full((count, 1), -100)), 1)
    pairs, width = given.length // 2, given.values + 1
    keys = rng.permuted(np.tile(np.arange(given.keys), (count, 1)), axis=1)[:, :pairs]
    values = rng.integers(0, given.values, (count, pairs))
    order = rng.permuted(np.tile(np.arange(pairs), (count, 1)), axis=1)
    asked = np.take_along_axis(values, order, 1)
    ids = np.concatenate((keys * width + values, np.take_along_axis(keys, order, 1) * width + given.values), 1)
    return ids.astype(np.int64), np.concatenate((np.full((count, pairs), -100), asked), 1).astype(np.int64)
