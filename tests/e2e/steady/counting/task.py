"""Doubles numbers, slowly. Every build leaves a line in the file that E2E_BUILDS names."""

import os
import time

import numpy as np

from effbench import Case, Data, Method, Metric, Task


class Doubler(Method):
    def build(self, given, run):
        with open(os.environ["E2E_BUILDS"], "a") as trace:
            trace.write(f"{self.name} {run.seed}\n")
        time.sleep(float(os.environ.get("E2E_SLEEP", "0.05")))
        self.factor = 2.0

    def answer(self, batch):
        return batch * self.factor


class Doubling(Task):
    name = "doubling"
    interface = Doubler
    data = (Data("numbers"),)
    cases = (Case("a"), Case("b"))
    metrics = {"exact": Metric("1", "higher", "item")}
    baselines = ("first",)

    def hidden(self, data, size, seed, prepared):
        return np.arange(24.0).reshape(4, 6)

    def batches(self, case, hidden, run):
        return list(hidden.copy())

    def call(self, method, batch, case):
        return method.answer(batch)

    def score(self, method, given, hidden, case, outputs):
        time.sleep(float(os.environ.get("E2E_SCORE", "0")))
        return {"exact": (np.stack(outputs) == 2 * hidden).mean(1)}
