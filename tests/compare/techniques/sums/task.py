"""Sums of squares of rows."""

import numpy as np

from effbench import Case, Data, Method, Metric, Task


class Summer(Method):
    def add(self, rows):
        raise NotImplementedError

    def first(self, rows):
        raise NotImplementedError("adds batches only")


class Sums(Task):
    name = "sums"
    interface = Summer
    data = (Data("numbers", {"n": 96}),)
    cases = (Case("batch"), Case("first"))
    metrics = {"right": Metric("1", "higher", "row")}
    baselines = ("vector-sum",)

    def given(self, data, size, seed, prepared):
        return {"n": data.args["n"]}

    def hidden(self, data, size, seed, prepared):
        return {"rows": np.random.default_rng(seed).standard_normal((4, 64, data.args["n"]))}

    def batches(self, case, hidden, run):
        return [rows.copy() for rows in hidden["rows"]]

    def call(self, method, batch, case):
        return method.add(batch) if case.name == "batch" else method.first(batch)

    def score(self, method, given, hidden, case, outputs):
        return {"right": [abs(a - b) < 1e-6 for rows, out in zip(hidden["rows"], outputs) for a, b in zip((rows**2).sum(1), out)]}
