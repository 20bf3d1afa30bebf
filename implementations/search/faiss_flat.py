"""Exact search by faiss's flat index, its switch to matrix products put where it belongs.

Douze et al., "The Faiss library" (arXiv:2401.08281). By default version 1.15 takes a matrix product only from queries * dimensions
= 128000 on and compares pairs one by one below, which costs several times as much for a batch of a few hundred. Products pay from
about six queries on; the switch is set there. Left out: scalar-quantised flat indexes, GPU.
"""

from __future__ import annotations

import numpy as np

from effbench import Flops

from .outside import FaissIndex

QUERIES = 6  # from here on a matrix product beats comparing pairs
_counts_dimensions: bool | None = None  # of the library in this process, asked before its switch is first set


class FaissFlat(FaissIndex):
    name = "faiss-flat"
    version = 1
    deterministic = True
    files = ("index.faiss", "mean")

    def index(self, base, given, run):
        faiss, metric = self.library()
        self.mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else None
        self.index_ = faiss.IndexFlat(self.d, metric)
        self.index_.add(base if self.mean is None else base - self.mean)

    def library(self):
        faiss, metric = super().library()
        global _counts_dimensions
        if hasattr(faiss.cvar, "distance_compute_blas_threshold"):
            if _counts_dimensions is None:  # older versions count queries (20 by default), newer ones queries * dimensions
                _counts_dimensions = faiss.cvar.distance_compute_blas_threshold > 1000
            faiss.cvar.distance_compute_blas_threshold = QUERIES * (self.d if _counts_dimensions else 1)
        return faiss, metric

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries), distances=len(queries) * self.rows)
        return self.index_.search(queries if self.mean is None else queries - self.mean, k)[1]

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=self.rows * self.d)
        product = 2 * tally["queries"] * self.rows * self.d
        return Flops(product, useful=product, dense=product, other=2 * tally["queries"] * self.rows)

    def write(self, folder):
        super().write(folder)
        (np.zeros(0, np.float32) if self.mean is None else self.mean).tofile(folder / "mean")

    def read(self, folder):
        super().read(folder)
        mean = np.fromfile(folder / "mean", np.float32)
        self.mean = mean if len(mean) else None
