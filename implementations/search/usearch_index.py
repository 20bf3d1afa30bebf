"""A navigable small-world graph by usearch, with vectors in float32.

Malkov and Yashunin (arXiv:1603.09320), as implemented in usearch. `expansion` candidates are kept on the lowest layer (ef).
Left out: half-precision and int8 vectors, deletions, several vectors a key.
"""

from __future__ import annotations

import numpy as np

from effbench import Flops, knob, param

from .outside import OutsideIndex
from .vectors import unit


class Usearch(OutsideIndex):
    name = "usearch"
    version = 1
    modules = ("usearch",)  # not a submodule: looking one up would import the package
    files = ("index.usearch",)

    links = param(16, sweep=(8, 16, 32))  # connectivity
    construction = param(200)  # expansion_add
    expansion = knob(40, sweep=(10, 20, 40, 80, 160))

    def index(self, base, given, run):
        self.positive("construction")
        if not isinstance(self.links, int) or self.links < 2:
            raise ValueError(f"links must be an integer of at least 2, not {self.links!r}")
        self.graph = self._empty()
        self.graph.add(np.arange(self.rows), base, threads=run.threads)

    def _empty(self):
        with self.run.part("import"):
            from usearch.index import Index
        metric = "l2sq" if self.metric == "l2" else "ip"
        return Index(ndim=self.d, metric=metric, dtype="f32", connectivity=self.links, expansion_add=self.construction)

    def nearest(self, queries, k):
        self.positive("expansion")
        self.graph.expansion_search = min(max(self.expansion, k), self.rows)
        if self.metric == "ip":  # the library ranks by 1 - <q,x>, which short queries leave no digits of
            queries = unit(queries)
        found = self.graph.search(queries, k, threads=self.run.threads)
        self.run.tally(queries=len(queries), distances=found.computed_distances)
        keys = np.atleast_2d(found.keys).astype(np.int64)  # one query gives a flat answer, cut to what was found
        if keys.shape[1] < k:
            return np.pad(keys, ((0, 0), (0, k - keys.shape[1])), constant_values=-1)
        if len(queries) > 1 and (found.counts < k).any():
            keys[np.arange(k) >= np.asarray(found.counts)[:, None]] = -1
        return keys

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        executed = 2 * self.d * tally["distances"]
        return Flops(executed, useful=executed, dense=2 * tally["queries"] * self.rows * self.d)

    def write(self, folder):
        self.graph.save(str(folder / "index.usearch"))

    def read(self, folder):
        self.graph = self._empty()
        self.graph.load(str(folder / "index.usearch"))
