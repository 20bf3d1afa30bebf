"""Inverted lists of 4-bit codes by faiss, looked up in registers ("fast scan"), the best rows re-ranked with full vectors.

Douze et al., "The Faiss library" (arXiv:2401.08281), IndexIVFPQFastScan under IndexRefineFlat: the nearest relative of ScaNN, with
codes that minimise the plain error. `leaves` is faiss's nprobe, `factor` its k_factor: factor * k rows are re-ranked.
Left out: a learned rotation (OPQ), 8-bit codes, GPU.
"""

from __future__ import annotations

from effbench import Flops, knob, param

from .outside import FaissLists
from .task import K


class FaissIvfPqFastScan(FaissLists):
    name = "faiss-ivfpqfs"
    version = 1

    partitions = param(256, sweep=(64, 256, 1024))
    width = param(2, sweep=(2, 4))  # dimensions of a block
    iterations = param(10)
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))
    factor = knob(10, sweep=(2, 5, 10, 20))

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        if given.base.ndim == 2 and self.width > 0 and given.base.shape[1] % self.width:
            return f"faiss cuts vectors into equal blocks: {given.base.shape[1]} dimensions are no multiple of {self.width}"
        if given.base.ndim == 2 and len(given.base) < 16:
            return "faiss trains 16 codewords on at least 16 rows"
        return ""

    def index(self, base, given, run):
        self.positive("partitions", "iterations", "width")
        faiss, metric = self.library()
        count = min(self.partitions, self.rows)
        inverted = faiss.IndexIVFPQFastScan(faiss.IndexFlat(self.d, metric), self.d, count, self.d // self.width, 4, metric)
        inverted.pq.cp.seed, inverted.pq.cp.min_points_per_centroid = run.seed % 2**31, 1
        self.train_and_add(faiss.IndexRefineFlat(inverted), base, self.iterations)

    def restored(self):
        super().restored()
        self.settings_ = self.faiss.IndexRefineSearchParameters()

    def nearest(self, queries, k):
        self.positive("leaves", "factor")
        leaves = min(self.leaves, self.inverted.nlist)
        self.inverted.nprobe = leaves
        self.settings_.k_factor = float(min(self.factor, -(-self.rows // k)))
        self.count(queries, leaves)
        return self.index_.search(queries, k, params=self.settings_)[1]

    def flops(self, phase, case, tally):
        """Look-ups are `other`; the codebook's k-means is left out (below 1 % of the lists')."""
        lists, d, queries = self.inverted.nlist, self.d, tally.get("queries", 0)
        if phase == "build":
            return Flops(2 * (self.iterations * min(self.rows, 256 * lists) + self.rows) * lists * d)
        executed = 2 * d * queries * (lists + 16 + min(self.factor * K, self.rows))
        return Flops(executed, useful=executed, dense=2 * queries * self.rows * d, other=tally["points"] * (d // self.width))
