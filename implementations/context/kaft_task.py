"""Task `context-faithfulness`: after fine-tuning, does the model obey a context that matters and ignore one that does not?

Prepared: a small reader that knows a table of facts by heart and can read statements about strangers. Every arm fine-tunes it for
the same steps on the same questions; arms differ only in the contexts that the questions come with. A quarter of each batch
asks without a context, in every arm: what is not rehearsed is forgotten. Scored on entities that no fine-tuning context names,
with swapped answers that no training context swaps in. Robustness is scored against what the model said before, not the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

from . import kaft_facts as facts

PRETRAINING = {"smoke": 60, "quick": 1500, "full": 4000}  # steps
REPEATS = {"smoke": 1, "quick": 6, "full": 20}  # contexts for each question
GATE = 0.99
PARTS = (
    ("relevant", facts.RELEVANT), ("counterfactual", facts.COUNTERFACTUAL), ("irrelevant", facts.IRRELEVANT), ("empty", facts.EMPTY),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Examination:
    """Questions in contexts: for each slice the ids and what the context says; for each group of entities ("" or "seen-") `before`,
    the model's own answers to its questions, and the truth. Slices repeat the questions of their group."""

    slices: dict[str, tuple[np.ndarray, np.ndarray]]
    before: dict[str, np.ndarray]
    truth: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Given:
    """`pretrained`: the weights of the model before. `rehearsal`: the share of each batch that asks without a context."""

    world: facts.World
    pretrained: dict[str, np.ndarray]
    d: int
    layers: int
    heads: int
    statements: int
    batch: int
    rehearsal: float
    random: float
    validation: Examination


class FineTuning(Method):
    """The interface: `mix()` gives the shares of relevant, counterfactual and irrelevant contexts among the rows with a context."""

    backend = "torch"
    learning_rate = param(0.001, tune=Log(0.0002, 0.005))  # AdamW's; the same default and range for every arm

    def mix(self) -> tuple[float, float, float]:
        raise NotImplementedError

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def prepare(self, given: Given) -> None:
        from ..shared.transformer import restore
        from .kaft_network import Reader

        self.given = given
        self.net = Reader(given.world.symbols, given.world.count, given.d, given.layers, given.heads).to(self.run.device)
        restore(self.net, given.pretrained)
        self.net.eval()

    def build(self, given: Given, run):
        from . import kaft_network as network

        shares = self.mix()
        if min(shares) < 0 or not (abs(sum(shares) - 1) < 1e-6 or sum(shares) == 0):
            raise ValueError(f"shares of contexts must not be negative and add up to 1 (or all be 0), not {shares}")
        if not run.budget.steps:
            raise ValueError("fine-tuning needs a budget in steps, the same for every arm: budget = {steps = 1000}")
        self.prepare(given)
        labels = None
        if shares[2] > 0:
            with run.part("label"):
                labels = self.own_answers()
        for _ in network.train(self.net, self.examples(shares, labels), run.budget.steps, self.learning_rate, run.put):
            run.tally(steps=1)
            yield Step(samples=given.batch)
            self.net.train()
        self.net.eval()

    def own_answers(self) -> np.ndarray:
        """What the model says without a context, before it learns anything: int64 [names, relations], -1 where it is not asked."""
        from . import kaft_network as network

        world = self.given.world
        name, relation = world.questions(facts.TRAIN)
        ids = facts.closed_book(world, name, relation, self.given.statements)
        found = np.full((len(world.names), world.relations), -1)
        found[name, relation] = network.answers(self.net, ids, self.run.put)
        self.run.tally(labelled=len(name))
        return found

    def examples(self, shares, labels):
        """(ids, targets) without end. Questions, distractors and swaps depend on the seed alone, not on the mix."""
        given, rng = self.given, np.random.default_rng((self.run.seed, 20))
        trained, every = given.world.questions(facts.TRAIN), given.world.questions(None)
        alone = given.batch if sum(shares) == 0 else round(given.rehearsal * given.batch)
        edges = np.round(np.cumsum(shares[:2]) * (given.batch - alone))
        row = np.arange(given.batch)
        kind = np.where(row < edges[0], facts.RELEVANT, np.where(row < edges[1], facts.COUNTERFACTUAL, facts.IRRELEVANT))
        kind = np.where(row >= given.batch - alone, facts.EMPTY, kind)
        while True:
            a, b = rng.integers(0, len(trained[0]), given.batch), rng.integers(0, len(every[0]), given.batch)
            name, relation = (np.where(kind == facts.EMPTY, one[b], other[a]) for one, other in zip(every, trained))
            ids, target = facts.prompts(
                given.world, kind, name, relation, facts.TRAIN, given.statements, rng, random=given.random
            )  # fmt: skip
            if labels is not None:
                target = np.where(kind == facts.IRRELEVANT, labels[name, relation], target)
            yield ids, target

    def answer(self, ids):
        """int64 [n, statements + 1, 3] -> logits [n, answers]."""
        import torch

        with torch.no_grad():
            return self.net(ids)

    def save(self, folder: Path) -> None:
        from ..shared.transformer import store

        np.savez(Path(folder) / "reader.npz", **store(self.net))

    def load(self, folder: Path, given: Given) -> None:
        from ..shared.transformer import restore

        self.prepare(given)
        with np.load(Path(folder) / "reader.npz", allow_pickle=False) as file:
            restore(self.net, dict(file))

    def parameters(self) -> int:
        from ..shared.transformer import parameter_count

        return parameter_count(self.net)

    def _shape(self) -> tuple[int, int, int, int]:
        return self.given.statements + 1, self.given.world.count, self.given.d, self.given.layers

    def step_flops(self, given: Given) -> float:
        from . import kaft_network as network

        self.given = given
        return network.step_flops(given.batch, *self._shape())

    def flops(self, phase, case, tally):
        from . import kaft_network as network

        if phase == "build":
            labelling = network.forward_flops(tally.get("labelled", 0), *self._shape())
            return Flops(tally.get("steps", 0) * self.step_flops(self.given) + labelling)
        work = network.forward_flops(tally["prompts"], *self._shape())
        return Flops(work, useful=work, dense=work)


class ContextFaithfulness(Task):
    name = "context-faithfulness"
    version = 1
    title = "Fine-tuning for contexts that agree, contradict, distract or are missing"
    interface = FineTuning
    phases = ("build", "serve")
    data = (
        Data("facts", {"entities": 120, "fictional": 60, "relations": 4, "answers": 40, "d": 64, "layers": 2, "heads": 4, "statements": 6, "batch": 128, "rehearsal": 0.25, "random": 0.5}),
        Data("library-facts", {"entities": 120, "fictional": 60, "d": 64, "layers": 2, "heads": 4, "statements": 6, "batch": 128, "rehearsal": 0.25, "random": 0.5}),
    )  # fmt: skip
    cases = (Case("prompts", {}),)
    metrics = {
        "controllability": Metric("1", "higher", "question"),
        "robustness": Metric("1", "higher", "question"),
        "stubbornness": Metric("1", "lower", "question"),
        "relevant-accuracy": Metric("1", "higher", "question"),
        "closed-book-accuracy": Metric("1", "higher", "question"),
        "seen-controllability": Metric("1", "higher", "question"),
        "seen-robustness": Metric("1", "higher", "question"),
        "faithfulness": Metric("1", "higher", "question"),
    }
    baselines = ("standard-fine-tuning", "no-context")
    objective = "faithfulness"

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from . import kaft_network as network

        args, rng = data.args, np.random.default_rng((seed, 8))
        wrong = [name for name in ("entities", "fictional", "d", "layers", "heads", "batch") if args[name] < 1]
        wrong += [name for name in ("statements", "relations") if args.get(name, 2) < 2]
        if wrong:
            raise ValueError(f"{data}: too small: {', '.join(wrong)}")
        if data.name == "facts":
            table, groups = facts.synthetic(args["entities"], args["relations"], args["answers"], rng)
        else:
            table, groups = facts.library(args["entities"], rng)
        made = {"table": table, "groups": groups}
        made |= network.pretrain(self.world(data, seed, made), args, PRETRAINING[size], seed, run)
        weak = [f"{name} {made[name]:.3f}" for name in ("closed_book", "reading") if made[name] < GATE]
        if weak and size != "smoke":
            raise ValueError(f"{data}: before fine-tuning {', '.join(weak)}: below {GATE} the model says nothing about fine-tuning")
        return made

    def world(self, data, seed, prepared) -> facts.World:
        names = 1 if data.name == "facts" else 2
        aliases = np.repeat(np.arange(len(prepared["table"])), names)
        rng = np.random.default_rng((seed, 9))
        return facts.world(prepared["table"], prepared["groups"], aliases, data.args["fictional"], rng)

    def given(self, data, size, seed, prepared) -> Given:
        args = {name: data.args[name] for name in ("d", "layers", "heads", "statements", "batch", "rehearsal", "random")}
        weights = {key.removeprefix("net."): value for key, value in prepared.items() if key.startswith("net.")}
        world = self.world(data, seed, prepared)
        validation = examination(world, prepared["before"], data.args, REPEATS[size], facts.VALIDATION, seed)
        return Given(world, weights, **args, validation=validation)

    def hidden(self, data, size, seed, prepared) -> Examination:
        return examination(self.world(data, seed, prepared), prepared["before"], data.args, REPEATS[size], facts.TEST, seed)

    def evaluate(self, method, given) -> dict[str, float]:
        exam = given.validation
        method.net.eval()
        outputs = [method.run.numpy(method.answer(method.run.put(ids))) for ids, _ in exam.slices.values()]
        found = {name: float(np.mean(value)) for name, value in rates(exam, [out.argmax(-1) for out in outputs]).items()}
        return {name: found[name] for name in ("faithfulness", "robustness")}  # of controllability there may be none yet

    def batches(self, case, hidden, run) -> list:
        return [run.put(ids) for ids, _ in hidden.slices.values()]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        ids = next(iter(hidden.slices.values()))[0]
        return {"triples cut to pairs": run.put(ids[..., :2]), "prompts as floats": run.put(ids.astype(np.float32))}

    def call(self, method, batch, case):
        method.run.tally(prompts=len(batch))
        return method.answer(batch)

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        for out, (ids, _) in zip(outputs, hidden.slices.values()):
            if out.shape != (len(ids), given.world.count):
                raise Wrong(f"logits of shape {list(out.shape)}, not {[len(ids), given.world.count]}")
            if not np.isfinite(out).all():
                raise Wrong("the logits hold NaN or infinity")
        return rates(hidden, [out.argmax(-1) for out in outputs])

    def unfair(self, record, other) -> str:
        mine, theirs = (one["readings"].get("size.parameters", {}).get("value") for one in (record, other))
        return "" if mine == theirs else f"{mine} parameters against {theirs}"


def examination(world: facts.World, before: np.ndarray, args, repeats: int, part: int, seed: int) -> Examination:
    """Every question of a part in `repeats` contexts of each kind; for the test, trained entities under the test's swaps as well."""
    slices, own, truth = {}, {}, {}
    for label, of in (("", part), ("seen-", facts.TRAIN))[: 1 + (part == facts.TEST)]:
        name, relation = world.questions(of)
        rng = np.random.default_rng((seed, 30, part, of))
        own[label], truth[label] = before[name, relation], world.truth(name, relation)
        # For trained entities the part's swaps: what was swapped in while training is never swapped in here.
        posed = replace(world, part=np.where(world.part == of, part, -1))
        for kind_name, kind in PARTS if not label else PARTS[1:3]:
            times = 1 if kind == facts.EMPTY else repeats
            who, what = np.tile(name, times), np.tile(relation, times)
            slices[label + kind_name] = facts.prompts(
                posed, np.full(len(who), kind), who, what, part, args["statements"], rng, random=args["random"]
            )  # fmt: skip
    return Examination(slices, own, truth)


def rates(exam: Examination, predictions: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Per question, the mean over its contexts. Controllability and stubbornness: of questions that the model knew before."""
    said = dict(zip(exam.slices, predictions))
    out = {}
    for label in exam.before:
        known = exam.before[label] == exam.truth[label]

        def share(slice_name, wanted, label=label):
            found = said[label + slice_name].reshape(-1, len(exam.before[label]))
            return (found == wanted.reshape(found.shape if wanted.size == found.size else (1, -1))).mean(0)

        stated = exam.slices[label + "counterfactual"][1]
        out[label + "controllability"] = share("counterfactual", stated)[known]
        out[label + "robustness"] = share("irrelevant", exam.before[label])
        if not label:
            out["stubbornness"] = share("counterfactual", exam.before[label])[known]
            out["relevant-accuracy"] = share("relevant", exam.truth[label])
            out["closed-book-accuracy"] = share("empty", exam.truth[label])
            out["faithfulness"] = (share("counterfactual", stated) + out["robustness"]) / 2
    return out
