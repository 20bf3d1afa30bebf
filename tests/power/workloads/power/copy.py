"""A copy of memory beyond the caches; more bytes are more work."""

import numpy as np

from effbench import param

from .task import Work

BYTES = 24 << 20


class Copy(Work):
    name = "copy"
    extra = param(0)

    def build(self, given, run):
        self.source = np.ones(BYTES * (100 + self.extra) // 100, np.uint8)
        self.target = np.zeros_like(self.source)

    def work(self, number):
        np.copyto(self.target, self.source)
        return int(self.target[number])
