"""Three largest dot products of each query: ids and values. The values must be those of the ids."""

import os
import time
from pathlib import Path

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong


class Answers(Method):
    """`answer(queries)` -> (ids int64[n, 3], values float64[n, 3]). The class itself answers honestly."""

    def build(self, given, run):
        self.base = given["base"]

    def answer(self, queries):
        dots = queries @ self.base.T
        ids = np.argsort(-dots, axis=1)[:, :3]
        return ids, np.take_along_axis(dots, ids, axis=1)


def beat_for_ever(name: str) -> None:
    """Leaves the time in a file, again and again, so that a test sees when it ended."""
    path = Path(os.environ["EFFBENCH_FAULTS"]) / name
    while True:
        path.open("a").write(f"{time.time()}\n")
        time.sleep(0.02)


class Largest(Task):
    name = "largest"
    interface = Answers
    data = (Data("rows", {"n": 60, "d": 4}),)
    cases = (Case("batch", {"size": 16}), Case("dozen", {"size": 12}, ("full",)))
    metrics = {"recall": Metric("1", "higher", "query"), "dot": Metric("1", "higher", "query")}
    baselines = ("honest",)

    def given(self, data, size, seed, prepared):
        return {"base": np.random.default_rng(seed).standard_normal((data.args["n"], data.args["d"]))}

    def hidden(self, data, size, seed, prepared):
        return np.random.default_rng([seed, 1]).standard_normal((48, data.args["d"]))

    def batches(self, case, hidden, run):
        return [hidden[i : i + case["size"]].copy() for i in range(0, 48, case["size"])]

    def call(self, method, batch, case):
        return method.answer(batch)

    def score(self, method, given, hidden, case, outputs):
        ids, values = (np.concatenate(part) for part in zip(*outputs))
        if ids.shape != (48, 3) or values.shape != (48, 3):
            raise Wrong(f"shape {ids.shape}, not (48, 3)")
        if ids.dtype.kind != "i":
            raise Wrong(f"ids are {ids.dtype}, not integers")
        if any(len(set(row)) < 3 for row in ids.tolist()):
            raise Wrong("an id stands twice in one answer")
        dots = hidden @ given["base"].T
        if (np.abs(np.take_along_axis(dots, ids, axis=1) - values) > 1e-6).any():
            raise Wrong("the values are not those of the ids")
        best = np.argsort(-dots, axis=1)[:, :3]
        return {"recall": [len(set(a) & set(b)) / 3 for a, b in zip(ids, best)], "dot": values.mean(1)}
