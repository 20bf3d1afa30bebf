"""A hundred products of float64 matrices; more products are more work. One product with more rows would not take as much longer."""

import numpy as np

from effbench import param

from .task import Work

PRODUCTS, ROWS, INNER = 100, 64, 256  # 128 KiB each: pages of their own, so that no arm has them aligned in another way


class Matmul(Work):
    name = "matmul"
    extra = param(0)

    def build(self, given, run):
        rng = np.random.default_rng(0)
        self.left = rng.standard_normal((ROWS, INNER))
        self.right = rng.standard_normal((INNER, ROWS))
        self.products = PRODUCTS * (100 + self.extra) // 100

    def work(self, number):
        for _ in range(self.products):
            found = self.left @ self.right
        return float(found[0, number])
