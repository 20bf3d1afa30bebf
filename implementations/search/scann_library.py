"""The library ScaNN: partitions, anisotropic 4-bit codes, exact rescoring; with SOAR spilling as a method of its own.

Guo et al. (ICML 2020), arXiv:1908.10396; Sun et al. (NeurIPS 2023), arXiv:2404.00774; github.com/google-research/google-research,
folder scann. Vectors of one length rank alike by l2 and by inner product; for them the library's inner product is taken, which has
residual codes and is its faster path. Left out: autopilot, bfloat16 and int8 rescoring, two levels of partitions.
"""

from __future__ import annotations

import numpy as np

from effbench import knob, param

from .outside import OutsideIndex

EQUAL = 1e-4  # relative spread of lengths that counts as one length


def one_length(base) -> bool:
    squared = np.einsum("nd,nd->n", base, base, dtype=np.float64)
    return bool(squared.max() - squared.min() <= EQUAL * squared.max())


class Scann(OutsideIndex):
    name = "scann"
    version = 1
    modules = ("scann", "google.protobuf")

    partitions = param(256, sweep=(64, 256, 1024))
    width = param(2)  # dimensions of a block
    threshold = param(0.2)  # T of the anisotropic loss
    int8_centres = param(False, sweep=(False, True))  # fewer bytes for one query, slower than a matrix product for a batch
    avq = param(0.0, sweep=(0.0, 1.7))  # anisotropic centres, inner products only; 0 leaves it out, as the library does by default
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))
    rescored = knob(100, sweep=(20, 40, 80, 160))

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        if given.base.ndim == 2 and len(given.base) < 100:
            return "the library wants at least 100 rows for a tree of partitions"
        return ""

    def tree(self):
        """Arguments of the library's `tree` beside the number of leaves."""
        return {"quantize_centroids": self.int8_centres, **({"avq": self.avq} if self.avq and self.inner else {})}

    def index(self, base, given, run):
        self.positive("partitions", "width")
        library = self.library()
        self.inner = self.metric == "ip" or one_length(base)
        count = min(self.partitions, self.rows)
        builder = library.builder(base, 10, "dot_product" if self.inner else "squared_l2")
        builder = builder.set_n_training_threads(run.threads).tree(count, 1, **self.tree())
        # A threshold makes no sense for distances: there the library's codes minimise the plain error.
        codes = {"anisotropic_quantization_threshold": self.threshold} if self.inner else {}
        self.searcher = builder.score_ah(self.width, **codes).reorder(100).build()
        self.searcher.set_num_threads(run.threads)

    def library(self):
        with self.run.part("import"):
            from scann.scann_ops.py import scann_ops_pybind
        return scann_ops_pybind

    def nearest(self, queries, k):
        self.positive("leaves", "rescored")
        leaves, rescored = min(self.leaves, self.partitions, self.rows), min(max(self.rescored, k), self.rows)
        self.run.tally(queries=len(queries))
        if len(queries) == 1:
            found = self.searcher.search(queries[0], k, rescored, leaves)[0].astype(np.int64)
            return np.pad(found, (0, k - len(found)), constant_values=-1)[None]
        search = self.searcher.search_batched_parallel if self.run.threads > 1 else self.searcher.search_batched
        found, distance = search(queries, k, rescored, leaves)
        return np.where(np.isnan(distance), -1, found.astype(np.int64))

    def save(self, folder):
        self.searcher.serialize(str(folder), relative_path=True)

    def load(self, folder, given):
        self.accept(given)
        if (folder / "scann_docids.pkl").exists():
            raise ValueError(f"{folder}: the library would unpickle scann_docids.pkl, which no index of ours has")
        self.searcher = self.library().load_searcher(str(folder))
        self.searcher.set_num_threads(self.run.threads)


class ScannSoar(Scann):
    name = "scann-soar"
    version = 1

    amplification = param(1.5)  # lambda
    overretrieve = param(2.0)  # candidates kept, in units of `rescored`, since a row may come up twice

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        if given.metric == "l2" and not one_length(given.base):
            return "the library spills for inner products only, and these vectors differ in length"
        return ""

    def tree(self):
        return {**super().tree(), "soar_lambda": self.amplification, "overretrieve_factor": self.overretrieve}
