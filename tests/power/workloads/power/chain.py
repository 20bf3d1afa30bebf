"""A chain of equal products on the device; more products are more work, one whole kernel for each per cent."""

import numpy as np
import torch

from effbench import param

from .task import Work

PRODUCTS, WIDTH = 100, 512


class Chain(Work):
    name = "chain"
    backend = "torch"
    extra = param(0)

    def build(self, given, run):
        rng = np.random.default_rng(0)
        self.start = run.put(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32))
        self.step = run.put((rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32))
        self.products = PRODUCTS * (100 + self.extra) // 100

    @torch.no_grad()
    def work(self, number):
        found = self.start
        for _ in range(self.products):
            found = found @ self.step
        return found[0, number]  # stays on the device: waiting here would put the host into the device's time
