"""Product quantisation: every vector as 4-bit codes of short blocks, all codes looked up, the best rows rescored.

Jegou, Douze and Schmid, "Product quantization for nearest neighbor search" (TPAMI 2011); the look-ups in registers follow Andre,
Kermarrec and Le Scouarnec, "Cache locality is not enough" (VLDB 2015). `loss = "anisotropic"` gives the score-aware codes of Guo
et al. (arXiv:1908.10396), `rescoring = "none"` the bare codes. Left out: 8-bit codes, a learned rotation (OPQ).
"""

from __future__ import annotations

import numpy as np

from effbench import param

from .quantised import QuantisedIndex


class Pq(QuantisedIndex):
    name = "pq"
    version = 1

    loss = param("reconstruction")

    def index(self, base, given, run):
        rows = self.centred(base)
        self.trained_on = min(len(rows), self.training)
        centre = np.zeros((1, self.d), np.float32)  # one list around the origin: the residual is the vector
        self.quantise(rows, centre, [np.zeros(len(rows), np.int64)])
