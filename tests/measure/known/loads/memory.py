"""Known bytes: 256 MiB that the build keeps, 64 MiB that a call needs for itself. Written to, hence resident."""

import numpy as np

from .task import Load

MIB = 2**20


class Allocates(Load):
    name = "allocates"

    def build(self, given, run):
        self.table = np.ones(256 * MIB, dtype=np.uint8)

    def answer(self, batch):
        scratch = np.ones(64 * MIB, dtype=np.uint8)
        return {"answer": 2 * batch, "last": scratch[-1:]}
