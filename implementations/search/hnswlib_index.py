"""A navigable small-world graph by hnswlib, the reference implementation of its authors.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable small world graphs"
(arXiv:1603.09320). `ef` candidates are kept on the lowest layer. Left out: deletions and filters. The library does not say how
many distances a search computes, so there is no FLOPs formula.
"""

from __future__ import annotations

import numpy as np

from effbench import knob, param

from .outside import OutsideIndex
from .vectors import unit


class Hnswlib(OutsideIndex):
    name = "hnswlib"
    version = 1
    modules = ("hnswlib",)
    files = ("index.hnsw",)

    links = param(16, sweep=(8, 16, 32))  # M
    construction = param(200)  # ef_construction
    ef = knob(40, sweep=(10, 20, 40, 80, 160))

    def index(self, base, given, run):
        self.positive("construction")
        if not isinstance(self.links, int) or self.links < 2:
            raise ValueError(f"links must be an integer of at least 2, not {self.links!r}")
        self.graph = self._empty()
        self.graph.init_index(max_elements=self.rows, M=self.links, ef_construction=self.construction, random_seed=run.seed % 2**31)
        self.graph.add_items(base, num_threads=run.threads)

    def _empty(self):
        with self.run.part("import"):
            import hnswlib
        return hnswlib.Index(space="l2" if self.metric == "l2" else "ip", dim=self.d)

    def nearest(self, queries, k):
        self.positive("ef")
        self.graph.set_ef(min(max(self.ef, k), self.rows))
        if self.metric == "ip":  # the library ranks by 1 - <q,x>, which short queries leave no digits of
            queries = unit(queries)
        self.run.tally(queries=len(queries))
        try:
            return self.graph.knn_query(queries, k, num_threads=self.run.threads)[0].astype(np.int64)
        except RuntimeError:
            return self._few(queries, k)

    def _few(self, queries, k):
        """A walk that ends with fewer than k rows fails the whole call: ask each query for as many as it can have."""
        out = np.full((len(queries), k), -1, np.int64)
        for i in range(len(queries)):
            for count in range(k, 0, -1):
                try:
                    out[i, :count] = self.graph.knn_query(queries[i : i + 1], count, num_threads=1)[0]
                    break
                except RuntimeError:
                    continue
        return out

    def write(self, folder):
        self.graph.save_index(str(folder / "index.hnsw"))

    def read(self, folder):
        self.graph = self._empty()
        self.graph.load_index(str(folder / "index.hnsw"), max_elements=self.rows)
