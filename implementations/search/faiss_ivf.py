"""Inverted lists of full vectors by faiss: the nearest lists of a query are scanned exactly.

Douze et al., "The Faiss library" (arXiv:2401.08281), IndexIVFFlat with a flat coarse quantiser. `leaves` is faiss's nprobe.
Left out: other coarse quantisers, direct maps, GPU.
"""

from __future__ import annotations

from effbench import Flops, knob, param

from .outside import FaissLists


class FaissIvf(FaissLists):
    name = "faiss-ivf"
    version = 1

    partitions = param(256, sweep=(64, 256, 1024))
    iterations = param(10)
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))

    def index(self, base, given, run):
        self.positive("partitions", "iterations")
        faiss, metric = self.library()
        count = min(self.partitions, self.rows)
        index = faiss.IndexIVFFlat(faiss.IndexFlat(self.d, metric), self.d, count, metric)
        self.train_and_add(index, base, self.iterations)

    def nearest(self, queries, k):
        self.positive("leaves")
        leaves = min(self.leaves, self.inverted.nlist)
        self.inverted.nprobe = leaves
        self.count(queries, leaves)
        return self.index_.search(queries, k)[1]

    def flops(self, phase, case, tally):
        lists, d = self.inverted.nlist, self.d
        if phase == "build":
            return Flops(2 * (self.iterations * min(self.rows, 256 * lists) + self.rows) * lists * d)
        executed = 2 * d * (tally["queries"] * lists + tally["points"])
        return Flops(executed, useful=executed, dense=2 * tally["queries"] * self.rows * d)
