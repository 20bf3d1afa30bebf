"""One row after the other."""

import numpy as np

from effbench import Flops

from .task import Summer

ROWS, BYTES = 64, 8 << 20


class Loop(Summer):
    name = "loop-sum"
    deterministic = True

    def build(self, given, run):
        self.n = given["n"]
        self.buffer = np.ones(BYTES, np.uint8)

    def add(self, rows):
        return np.array([np.dot(rows[i % ROWS], rows[i % ROWS]) for i in range(ROWS)])

    def flops(self, phase, case, tally):
        return Flops(2 * self.n * ROWS) if phase == "serve" else None
