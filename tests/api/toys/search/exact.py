"""Every score, then a sort."""

import numpy as np

from effbench import Flops

from .task import VectorIndex


class Exact(VectorIndex):
    name = "toy-exact"
    deterministic = True

    def build(self, given, run):
        self.base = given["base"]

    def search(self, queries, k):
        self.run.tally(queries=len(queries))
        return np.argsort(-queries @ self.base.T, axis=1)[:, :k]

    def flops(self, phase, case, tally):
        return Flops(2 * self.base.size * tally["queries"]) if phase == "serve" else None
