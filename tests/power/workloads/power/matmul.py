"""A product of float64 matrices; more rows are more work."""

import numpy as np

from effbench import param

from .task import Work

ROWS, INNER = 400, 200


class Matmul(Work):
    name = "matmul"
    extra = param(0)

    def build(self, given, run):
        rng = np.random.default_rng(0)
        self.left = rng.standard_normal((ROWS * (100 + self.extra) // 100, INNER))
        self.right = rng.standard_normal((INNER, INNER))

    def work(self, number):
        return float((self.left @ self.right)[0, number])
