"""A copy of memory, piece by piece; more pieces are more work.

Both arms go round in arrays of one size: larger ones lie on other pages and fit the caches less, so that their time says little about
the amount that is copied.
"""

import numpy as np

from effbench import param

from .task import Work

PIECES, PIECE = 100, 240 << 10


class Copy(Work):
    name = "copy"
    extra = param(0)

    def build(self, given, run):
        self.source = np.ones((PIECES, PIECE), np.uint8)
        self.target = np.zeros_like(self.source)
        self.pieces = PIECES * (100 + self.extra) // 100

    def work(self, number):
        for piece in range(self.pieces):
            np.copyto(self.target[piece % PIECES], self.source[piece % PIECES])
        return int(self.target[0, number])
