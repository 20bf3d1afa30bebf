"""Task `parity-tree`: tasks that are made of tasks. Fifteen parities over hidden bits, 3 bits each, then 6, 12 and 24 as products.

A stream of batches, easy tasks first; a batch is of one task, which nobody names: each example carries a noisy descriptor, a unit
vector in 64 dimensions turned by `noise` rad. Some bits of x belong to no task: a parity of all bits can be learned end to end,
one of 24 of 36 cannot. Every arm gets the same number of samples (an input, its descriptor, one label); what it does with them
is its own affair: the stream as it comes, all tasks mixed, or the top task alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong

TESTED = {"smoke": 64, "quick": 512, "full": 2048}  # examples of each task
BATCHES = {"smoke": 3, "quick": 64, "full": 64}  # of one example
BITS = 3  # of an atomic task


@dataclass(frozen=True, eq=False)
class School:
    """Where samples come from. Tasks are numbered level by level; `level` int64 [tasks], the top task is the last one.

    Samples are (x float32 [n, bits] of -1 and 1, descriptors float32 [n, m], labels float32 [n] of -1 and 1, task int64 [n]).
    Task numbers are for arms that say that they use them (an oracle, heads); the others leave them alone.
    """

    bits: int
    noise: float
    batch: int
    supports: np.ndarray  # bool [tasks, bits]
    level: np.ndarray
    descriptors: np.ndarray  # float32 [tasks, m]

    @property
    def tasks(self) -> int:
        return len(self.level)

    def draw(self, task: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        x = (2 * rng.integers(0, 2, (len(task), self.bits)) - 1).astype(np.float32)
        label = np.where(self.supports[task], x, 1).prod(1).astype(np.float32)
        return x, self.describe(task, rng), label, task

    def describe(self, task: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The tasks' descriptors, each turned by the angle `noise` towards a random direction."""
        true = self.descriptors[task]
        away = rng.standard_normal(true.shape)
        away -= (away * true).sum(1, keepdims=True) * true
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        return (np.cos(self.noise) * true + np.sin(self.noise) * away).astype(np.float32)

    def curriculum(self, steps: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """Level by level, the tasks of a level in random order; a task's batches follow each other. All tasks get equal shares."""
        order = np.concatenate([rng.permutation(np.flatnonzero(self.level == level)) for level in np.unique(self.level)])
        for task in np.repeat(order, -(-steps // self.tasks))[:steps]:
            yield self.draw(np.full(self.batch, task), rng)

    def mixed(self, steps: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """All tasks in every batch."""
        for _ in range(steps):
            yield self.draw(rng.integers(0, self.tasks, self.batch), rng)

    def alone(self, steps: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, ...]]:
        """The top task and nothing else."""
        for _ in range(steps):
            yield self.draw(np.full(self.batch, self.tasks - 1), rng)


def school(bits: int, atoms: int, noise: float, batch: int, m: int, rng: np.random.Generator) -> School:
    """`atoms` (a power of 2) parities of 3 bits on disjoint bits, then products of pairs up to one task over all of them."""
    if atoms not in (2, 4, 8, 16) or BITS * atoms > bits:
        raise ValueError(f"atoms must be 2, 4, 8 or 16, with {BITS} bits each of {bits}; it is {atoms}")
    if batch < 1 or m < 2 or not 0 <= noise < np.pi / 2:
        raise ValueError(f"batch at least 1, descriptor at least 2, noise in 0..pi/2; they are {batch}, {m}, {noise}")
    hidden = rng.permutation(bits)[: BITS * atoms].reshape(atoms, BITS)
    supports, level = [np.isin(np.arange(bits), part) for part in hidden], [0] * atoms
    row = supports
    while len(row) > 1:
        row = [a | b for a, b in zip(row[::2], row[1::2])]
        supports, level = supports + row, level + [level[-1] + 1] * len(row)
    descriptors = rng.standard_normal((len(level), m))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return School(bits, noise, batch, np.array(supports), np.array(level), descriptors.astype(np.float32))


class Learner(Method):
    """The interface. `answer(x, descriptors, task)`: [n, bits], [n, m], int64 [n] -> [n] of -1 and 1; only an oracle reads `task`.

    `answers(level, levels)` says on which levels the arm answers at all. `facts()` gives further numbers for the record, among the
    task's metrics.
    """

    backend = "torch"

    def skip(self, given: School) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def answer(self, x, descriptors, task):
        raise NotImplementedError

    def answers(self, level: int, levels: int) -> bool:
        return True

    def facts(self, given: School) -> dict[str, float]:
        return {}

    def check(self, given: School, run) -> int:
        """The steps of the budget; ValueError without one."""
        if not run.budget.steps:
            raise ValueError("learners need a budget in steps of one batch, the same for every arm: budget = {steps = 9000}")
        return run.budget.steps


@dataclass(frozen=True, eq=False)
class Hidden:
    school: School
    x: np.ndarray
    descriptors: np.ndarray
    labels: np.ndarray
    task: np.ndarray
    singles: int


class ParityTree(Task):
    name = "parity-tree"
    version = 1
    title = "Tasks made of tasks, without being told which is which"
    interface = Learner
    phases = ("build", "serve")
    data = (Data("parities", {"bits": 36, "atoms": 8, "noise": 0.1, "batch": 256, "m": 64}),)
    cases = (Case("mixed", {"batch": 0}), Case("one-by-one", {"batch": 1}))
    metrics = {
        "accuracy": Metric("1", "higher", "example"),
        "top-accuracy": Metric("1", "higher", "example"),
        "level-0-accuracy": Metric("1", "higher", "example"),
        "level-1-accuracy": Metric("1", "higher", "example"),
        "level-2-accuracy": Metric("1", "higher", "example"),
        "level-3-accuracy": Metric("1", "higher", "example"),
        "samples-used": Metric("sample", "lower", "learner"),
        "modules": Metric("1", "lower", "learner"),
        "false-merges": Metric("1", "lower", "learner"),
        "lookup-recall": Metric("1", "higher", "learner"),
        "erased-error": Metric("1", "lower", "learner"),
        "parts-recognised": Metric("1", "higher", "learner"),
    }
    baselines = ("end-to-end", "joint", "oracle-modules", "random-modules")
    objective = "accuracy"
    prepares = ()

    def given(self, data, size, seed, prepared) -> School:
        args = data.args
        rng = np.random.default_rng((seed, 40))
        return school(args["bits"], args["atoms"], args["noise"], args["batch"], args["m"], rng)

    def hidden(self, data, size, seed, prepared) -> Hidden:
        made, rng = self.given(data, size, seed, prepared), np.random.default_rng((seed, 41))
        task = rng.permutation(np.repeat(np.arange(made.tasks), TESTED[size]))
        x, descriptors, labels, task = made.draw(task, rng)
        return Hidden(made, x, descriptors, labels, task, BATCHES[size])

    def evaluate(self, method, given) -> dict[str, float]:
        rng = np.random.default_rng(42)
        levels = int(given.level.max()) + 1
        asked = np.flatnonzero([method.answers(int(level), levels) for level in given.level])
        x, descriptors, labels, task = given.draw(np.repeat(asked, 64), rng)
        said = method.run.numpy(method.answer(*(method.run.put(part) for part in (x, descriptors, task))))
        return {"accuracy": float(np.mean(said == labels))}

    def batches(self, case, hidden, run) -> list:
        if case["batch"]:
            places = [np.array([i]) for i in range(min(hidden.singles, len(hidden.task)))]
        else:
            places = np.array_split(np.arange(len(hidden.task)), 4)
        return [tuple(run.put(part[rows]) for part in (hidden.x, hidden.descriptors, hidden.task)) for rows in places]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        x, descriptors, task = (part[:4] for part in (hidden.x, hidden.descriptors, hidden.task))
        return {
            "a bit is missing": tuple(map(run.put, (x[:, 1:], descriptors, task))),
            "descriptors of another length": tuple(map(run.put, (x, descriptors[:, 1:], task))),
        }

    def call(self, method, batch, case):
        x, descriptors, task = batch
        school = method.given
        if x.shape[1:] != (school.bits,) or descriptors.shape[1:] != school.descriptors.shape[1:] or len(x) != len(descriptors):
            raise ValueError(
                f"inputs {list(x.shape)}, descriptors {list(descriptors.shape)}: [n, {school.bits}] and [n, m] are asked for"
            )
        return method.answer(x, descriptors, task)

    def items(self, batch, output) -> int:
        return len(batch[0])

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        said = np.concatenate(outputs)
        if not np.isin(said, (-1, 1)).all():
            raise Wrong(f"answers are -1 or 1, not {np.unique(said)[:4]}")
        if case["batch"] == 1:  # too few to say anything about quality
            return {}
        levels = int(given.level.max()) + 1
        right, level = (said == hidden.labels).astype(float), given.level[hidden.task]
        found: dict[str, Any] = {name: float(value) for name, value in method.facts(given).items()}
        shown = [one for one in range(levels) if method.answers(one, levels) and (level == one).any()]
        if not shown:
            return found
        found["accuracy"] = right[np.isin(level, shown)]
        for one in shown:
            found["top-accuracy" if one == levels - 1 else f"level-{one}-accuracy"] = right[level == one]
        return found

    def unfair(self, record, other) -> str:
        mine, theirs = (one["readings"].get("build.samples", {}).get("value") for one in (record, other))
        return "" if mine == theirs else f"{mine} samples against {theirs}"
