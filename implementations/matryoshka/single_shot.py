"""Single-shot retrieval: one exact scan at one length, `dims` (0: the full one). What adaptive retrieval saves work against.

With `embedding = "separate"` this is the model trained for that length, with "pca" the free rival. No paper.
"""

from __future__ import annotations

from effbench import Flops, knob

from .retrieval import K
from .tables import TableRetriever, scan


class SingleShot(TableRetriever):
    name = "single-shot"
    version = 1
    deterministic = True

    dims = knob(0, sweep=(2, 4, 8, 16, 32, 0))

    def used(self):
        return (self.size(self.dims, "dims"),)

    def search(self, queries):
        (m,) = self.used()
        query = self.queries(queries, m)(m)
        self.run.tally(queries=len(query))
        return scan(self.tables[m], query, K)

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        q, (m,), d = tally["queries"], self.used(), self.sizes[-1]
        own = self.turning_flops(q, m)
        product = 2.0 * q * self.rows * m
        return Flops(product + own, dense=2.0 * q * self.rows * d, other=q * self.rows, bytes=4.0 * self.rows * m)
