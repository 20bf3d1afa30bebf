"""A navigable small-world graph by faiss: greedy walks over layers of neighbour lists.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using hierarchical navigable small world graphs"
(arXiv:1603.09320), as IndexHNSWFlat of faiss (arXiv:2401.08281). `ef` candidates are kept on the lowest layer.
Left out: compressed vectors in the graph, deletions, GPU.
"""

from __future__ import annotations

from effbench import Flops, knob, param

from .outside import FaissIndex


class FaissHnsw(FaissIndex):
    name = "faiss-hnsw"
    version = 1

    links = param(16, sweep=(8, 16, 32))  # M
    construction = param(200)  # efConstruction
    ef = knob(40, sweep=(10, 20, 40, 80, 160))

    def index(self, base, given, run):
        self.positive("links", "construction")
        faiss, metric = self.library()
        self.index_ = faiss.IndexHNSWFlat(self.d, self.links, metric)
        self.index_.hnsw.efConstruction = self.construction
        self.index_.hnsw.rng = faiss.RandomGenerator(run.seed % 2**31)
        self.index_.add(base)

    def nearest(self, queries, k):
        self.positive("ef")
        self.index_.hnsw.efSearch = min(max(self.ef, k), self.rows)
        self.run.tally(queries=len(queries), distances=lambda: self._distances(queries, k))
        return self.index_.search(queries, k)[1]

    def _distances(self, queries, k):
        """Distances computed in a search of `queries`: run once more, in the untimed pass."""
        self.faiss.cvar.hnsw_stats.reset()
        self.index_.search(queries, k)
        return self.faiss.cvar.hnsw_stats.ndis

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        executed = 2 * self.d * tally["distances"]
        return Flops(executed, useful=executed, dense=2 * tally["queries"] * self.rows * self.d)
