"""Random projection: rank all rows in few dimensions, then the best candidates exactly.

After Johnson and Lindenstrauss: distances survive a random projection roughly. Left out: sparse projections.
"""

import numpy as np
from effbench_implementations.search.task import VectorIndex

from effbench import knob, param


class Projection(VectorIndex):
    name = "random-projection"
    dimensions = param(8, sweep=[4, 8, 16])
    candidates = knob(100, sweep=[50, 100, 400])

    def index(self, base, given, run):
        self.base = base
        self.directions = run.rng.standard_normal((self.d, self.dimensions)).astype(np.float32)
        self.low = base @ self.directions

    def nearest(self, queries, k):
        best = self._rank(self.low, queries @ self.directions)[:, : max(k, self.candidates)]
        rows = self.base[best]
        if self.metric == "l2":
            exact = ((rows - queries[:, None]) ** 2).sum(2)
        else:
            exact = -(rows @ queries[:, :, None])[..., 0]
        return np.take_along_axis(best, np.argsort(exact, axis=1)[:, :k], axis=1)

    def _rank(self, rows, queries):
        scores = -(queries @ rows.T)
        if self.metric == "l2":
            scores += 0.5 * (rows**2).sum(1)
        return np.argsort(scores, axis=1)
