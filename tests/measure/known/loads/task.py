"""Loads of a known cost. The answer is the batch doubled, whatever else a method does meanwhile."""

import numpy as np

from effbench import Case, Data, Method, Metric, Task


class Load(Method):
    def answer(self, batch):
        raise TypeError("no load")


class KnownLoad(Task):
    name = "known-load"
    interface = Load
    data = (Data("numbers", {"n": 64}),)
    cases = (Case("all", {}),)
    metrics = {"right": Metric("1", "higher", "call")}
    baselines = ("burns",)

    def hidden(self, data, size, seed, prepared):
        return np.random.default_rng(seed).standard_normal((3, data.args["n"])).astype(np.float32)

    def batches(self, case, hidden, run):
        return [run.put(row) for row in hidden]

    def call(self, method, batch, case):
        return method.answer(batch)

    def score(self, method, given, hidden, case, outputs):
        return {"right": [float(np.array_equal(out["answer"], 2 * row)) for out, row in zip(outputs, hidden)]}
