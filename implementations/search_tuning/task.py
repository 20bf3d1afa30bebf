"""Task `knob-tuning`: find the knobs of a search index that give a wanted recall at the least cost, or the most recall for a cost.

Prepared material is a table of one real index at every setting of a grid (`table.py`); tuners replay it, so that a run takes
seconds and repeats exactly. A tuner sees a random half of the queries, and at most `trials` settings of the grid; it answers eight
targets at once: four recalls and four costs. What it chose is judged on the other half. The exhaustive grid, with no limit of
trials, is what gaps are measured against: it is the reference and no method. Cost is bytes read by a query, as a share of a scan
of all vectors; seconds are another question, which `effbench tune` asks of any method (docs/tuning.md).
What this leaves out: noise of a trial, build parameters, queries unlike the tuning ones.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from effbench import Data, Method, Metric, Task, Wrong, dataset

from . import table
from .bench import Answer, Bench, Target

RECALLS = (0.8, 0.9, 0.95, 0.98)
CAPS = (0.25, 0.4, 0.55, 0.7)  # of the way from the grid's cheapest to its dearest setting, on a logarithmic scale
QUERIES = {"smoke": 200, "quick": 600, "full": 1000}
GRID = {"smoke": (16, 16), "quick": (40, 60), "full": (40, 60)}  # at most so many values of probes and of rescored


class KnobTuner(Method):
    """A tuner. `answers` holds what it chose, one for each target, after `build`."""

    answers: list[Answer]

    def tune(self, bench: Bench, targets: tuple[Target, ...], rng) -> list[Answer]:
        """One answer for each target, with at most `bench.limit` measured settings."""
        raise NotImplementedError(f"method '{self.name}' has no tune()")

    def build(self, given, run):
        self.answers = self.tune(given.bench, given.targets, run.rng)


class KnobTuning(Task):
    name = "knob-tuning"
    version = 1
    title = "Tuning an index under a recall or a cost constraint"
    interface = KnobTuner
    phases = ("build",)
    data = (
        Data(
            "clustered", {"n": 20000, "d": 64, "centers": 200, "rank": 32, "spread": 1.0, "noise": 0.15, "width": 2, "trials": 48}
        ),
        Data("fashion-mnist-784", {"n": 20000, "width": 4, "trials": 48}, needs=("fashion-mnist",)),
    )
    metrics = {
        "front-gap@0.8": Metric("1", "lower", "replicate"),
        "front-gap@0.9": Metric("1", "lower", "replicate"),
        "front-gap@0.95": Metric("1", "lower", "replicate"),
        "front-gap@0.98": Metric("1", "lower", "replicate"),
        "front-gap": Metric("1", "lower", "replicate"),
        "excess-cost": Metric("1", "lower", "replicate"),
        "recall-loss-at-cost": Metric("1", "lower", "replicate"),
        "cost-overrun": Metric("1", "lower", "replicate"),
        "recall-error": Metric("1", "lower", "replicate"),
        "shortfall": Metric("1", "lower", "replicate"),
        "measuring-cost": Metric("1", "lower", "replicate"),
        "trials": Metric("1", "lower", "replicate"),
    }
    baselines = ("random-search-knobs", "grid-search")
    prepares = ("n", "d", "centers", "rank", "spread", "noise", "width")
    replicates = 20

    def prepare(self, data, size, seed, run):
        args, queries = dict(data.args), QUERIES[size]
        rows = min(args["n"], 2000) if size == "smoke" else args["n"]
        if data.name == "clustered":
            shape = {name: args[name] for name in ("centers", "rank", "spread", "noise")}
            made = table.clustered(np.random.default_rng([seed, 0x7E]), rows + queries, args["d"], **shape)
            base, asked = made[:rows], made[rows:]
        else:
            images = dataset("fashion-mnist")
            if rows > len(images["train_images"]):
                raise ValueError(f"{data}: there are {len(images['train_images'])} rows")
            base, asked = (
                images[name][:count].reshape(count, -1).astype(np.float32) / np.float32(255)
                for name, count in (("train_images", rows), ("test_images", queries))
            )
        return table.build(base, asked, width=args["width"], grid=GRID[size], seed=seed)

    def given(self, data, size, seed, prepared):
        """`bench`, `targets`. The halves of the queries are those of the replicate."""
        tuning, _ = halves(len(prepared["hits"]), seed)
        cost = prepared["cost"][tuning].mean(0)
        low, high = np.log(cost.min()), np.log(cost.max())
        caps = tuple(Target("cost", float(np.exp(low + share * (high - low)))) for share in CAPS)
        targets = tuple(Target("recall", value) for value in RECALLS) + caps
        return SimpleNamespace(bench=Bench(prepared, tuning, int(data.args["trials"])), targets=targets)

    def hidden(self, data, size, seed, prepared):
        tuning, held_out = halves(len(prepared["hits"]), seed)
        means = [(prepared["hits"][rows].mean(0) / table.K, prepared["cost"][rows].mean(0)) for rows in (tuning, held_out)]
        return SimpleNamespace(tuning=means[0], held_out=means[1])

    def score(self, method, given, hidden, case, outputs):
        """One replicate; everything but the grid's own choice is of held-out queries.

        `front-gap@R` is the cost of the setting chosen for recall R over the cheapest grid setting of at least the same recall,
        less 1; `front-gap` is the worst of the four. It does not see a choice on the front at another recall than was asked:
        `shortfall` is the most that any of the four falls below its target, and `excess-cost` the mean of cost over the cost of
        what the exhaustive grid chooses on the tuning queries, less 1 (below 0 where the tuner took less than was asked).
        `recall-loss-at-cost`: the worst difference to the grid's best recall within what the choice for a cost spends;
        `cost-overrun` the most that such a choice exceeds its cap on the tuning queries, as a share.
        `recall-error` is the worst |expected - held-out| over all eight; `measuring-cost` a share of the exhaustive grid's.
        """
        bench, (recall, cost) = given.bench, hidden.held_out
        answers = checked(method.answers, given.targets, bench.shape)
        (tuned_recall, tuned_cost), gaps, excess, losses, overrun = hidden.tuning, [], [], [], []
        for target, answer in zip(given.targets, answers):
            at = (answer.probes, answer.rescored)
            if target.kind == "recall":
                gaps.append(cost[at] / cost[recall >= recall[at]].min() - 1)
                meets = tuned_recall >= target.value
                # Where even the whole grid misses the target, its best recall is what it would take.
                best = np.where(meets if meets.any() else tuned_recall >= tuned_recall.max(), tuned_cost, np.inf).argmin()
                excess.append(cost[at] / cost.flat[best] - 1)
            else:
                losses.append(recall[cost <= cost[at]].max() - recall[at])
                overrun.append(max(0.0, tuned_cost[at] / target.value - 1))
        found = {f"front-gap@{target.value:g}": float(gap) for target, gap in zip(given.targets, gaps)}
        expected = [abs(answer.recall - recall[answer.probes, answer.rescored]) for answer in answers]
        short = [
            target.value - recall[answer.probes, answer.rescored]
            for target, answer in zip(given.targets, answers)
            if target.kind == "recall"
        ]
        return found | {
            "front-gap": float(max(gaps)),
            "excess-cost": float(np.mean(excess)),
            "recall-loss-at-cost": float(max(losses)),
            "cost-overrun": float(max(overrun)),
            "recall-error": float(max(expected)),
            "shortfall": float(max(0.0, *short)),
            "measuring-cost": bench.spent / float(tuned_cost.sum() * bench.queries),
            "trials": float(len(bench.seen)),
        }


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tuning and held-out queries of a replicate, equally many (one more held out where they are odd)."""
    order = np.random.default_rng([seed, 0x5B]).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def checked(answers, targets, shape) -> list[Answer]:
    """The answers, or Wrong: one for each target, on the grid, with numbers for what is expected."""
    if not isinstance(answers, list) or len(answers) != len(targets):
        raise Wrong(f"{len(answers) if isinstance(answers, list) else 'no'} answers for {len(targets)} targets")
    for answer in answers:
        if not (0 <= answer.probes < shape[0] and 0 <= answer.rescored < shape[1]):
            raise Wrong(f"setting ({answer.probes}, {answer.rescored}) lies outside the grid of {shape}")
        if not (0 <= answer.recall <= 1 and np.isfinite(answer.cost)):
            raise Wrong(f"expected recall {answer.recall} and cost {answer.cost} are no numbers to expect")
    return answers
