"""The library ScaNN: partitions, anisotropic 4-bit codes, exact rescoring; with SOAR spilling as a method of its own.

Guo et al. (ICML 2020), arXiv:1908.10396; Sun et al. (NeurIPS 2023), arXiv:2404.00774; github.com/google-research/google-research,
folder scann. Vectors of one length rank alike by l2 and by inner product; for them the library's inner product is taken, which has
residual codes and is its faster path. So that a seed reproduces an index, k-means starts by k-means++, which makes the build half as
long again (`seeded = False` is the library's default). Left out: autopilot, bfloat16 and int8 rescoring, two levels of partitions.
"""

from __future__ import annotations

import sys

import numpy as np

from effbench import Bound, Claim, knob, param

from .outside import OutsideIndex

EQUAL = 1e-4  # relative spread of lengths that counts as one length


def one_length(base) -> bool:
    squared = np.einsum("nd,nd->n", base, base, dtype=np.float64)
    if not np.isfinite(squared).all():
        return False
    return bool(squared.max() - squared.min() <= EQUAL * squared.max())


class Scann(OutsideIndex):
    name = "scann"
    version = 1
    modules = ("scann", "google.protobuf")
    # Without scann_docids.pkl, which the library would unpickle.
    files = (
        "ah_codebook.pb", "datapoint_to_token.npy", "dataset.npy", "hashed_dataset.npy", "hashed_dataset_soar.npy",
        "scann_assets.pbtxt", "scann_config.pb", "serialized_partitioner.pb", "dp_norms.npy",
    )  # fmt: skip

    partitions = param(256, sweep=(64, 256, 1024))
    width = param(2)  # dimensions of a block
    threshold = param(0.2)  # T of the anisotropic loss
    int8_centres = param(False, sweep=(False, True))  # fewer bytes for one query, slower than a matrix product for a batch
    avq = param(0.0, sweep=(0.0, 1.7))  # anisotropic centres, inner products only; 0 leaves it out, as the library does by default
    seeded = param(True)  # k-means++ from the run's seed; else the library's default, a faster build that no seed reproduces
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))
    rescored = knob(100, sweep=(20, 40, 80, 160))

    claims = (
        Claim(
            text="State of the art: at recall 0.95 no slower than the other libraries, one query at a time",
            source="Guo et al. (arXiv:1908.10396), abstract: state-of-the-art results on public benchmarks; the peers are ours",
            parts=(
                Bound("serve.throughput", ">=", 1.0, over="faiss-ivfpqfs", at="quality.recall@10 >= .95", case="one-by-one"),
                Bound("serve.throughput", ">=", 1.0, over="faiss-ivf", at="quality.recall@10 >= .95", case="one-by-one"),
                Bound("serve.throughput", ">=", 1.0, over="faiss-hnsw", at="quality.recall@10 >= .95", case="one-by-one"),
                Bound("serve.throughput", ">=", 1.0, over="hnswlib", at="quality.recall@10 >= .95", case="one-by-one"),
                Bound("serve.throughput", ">=", 1.0, over="usearch", at="quality.recall@10 >= .95", case="one-by-one"),
            ),
            size="quick",
        ),
    )

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        if given.base.ndim == 2 and len(given.base) < 100:
            return "the library wants at least 100 rows for a tree of partitions"
        return ""

    def tree(self):
        """Arguments of the library's `tree` beside the number of leaves."""
        return {
            "quantize_centroids": self.int8_centres,
            "random_init": not self.seeded,
            **({"avq": self.avq} if self.avq and self.inner else {}),
        }

    def index(self, base, given, run):
        self.positive("partitions", "width")
        self.not_negative("threshold", "avq")
        library = self.library()
        self.inner = self.metric == "ip" or one_length(base)
        count = min(self.partitions, self.rows)
        builder = library.builder(base, 10, "dot_product" if self.inner else "squared_l2")
        builder = builder.set_n_training_threads(run.threads).tree(count, 1, **self.tree())
        # A threshold makes no sense for distances: there the library's codes minimise the plain error.
        codes = {"anisotropic_quantization_threshold": self.threshold} if self.inner else {}
        builder = builder.score_ah(self.width, **codes).reorder(100)

        def create(rows, config, threads, **other):
            """The builder has no argument for a seed; its configuration has."""
            seed = f"clustering_seed: {run.seed % 2**31} min_cluster_size:"
            return library.create_searcher(rows, config.replace("min_cluster_size:", seed, 1), threads, **other)

        self.searcher = (builder.set_builder_lambda(create) if self.seeded else builder).build()
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

    def write(self, folder):
        self.searcher.serialize(str(folder), relative_path=True)

    def read(self, folder):
        if "usearch" in sys.modules:  # seen with scann 1.4.2 and usearch 2.26: a crash, where there should be an error
            raise RuntimeError("ScaNN cannot read an index in a process that has imported usearch: their C++ libraries clash")
        self.searcher = self.library().load_searcher(str(folder))
        self.searcher.set_num_threads(self.run.threads)


class ScannSoar(Scann):
    name = "scann-soar"
    version = 1
    claims = (
        Claim(
            text="Spilling with orthogonality-amplified residuals searches faster than no spilling at recall 0.95",
            source="our own question about Sun et al. (arXiv:2404.00774); no number of theirs is quoted",
            parts=(Bound("serve.throughput", ">=", 1.0, over="scann", at="quality.recall@10 >= .95"),),
            size="quick",
        ),
    )

    amplification = param(1.5)  # lambda
    overretrieve = param(2.0)  # candidates kept, in units of `rescored`, since a row may come up twice

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        searchable = given.base.ndim == 2 and given.base.dtype.kind in "fiu"  # what is not is refused by the build, with its reason
        if given.metric == "l2" and searchable and not one_length(given.base):
            return "the library spills for inner products only, and these vectors differ in length"
        return ""

    def index(self, base, given, run):
        self.not_negative("amplification")
        if not self.overretrieve >= 1:
            raise ValueError(f"overretrieve must be at least 1, not {self.overretrieve!r}")
        return super().index(base, given, run)

    def tree(self):
        return {**super().tree(), "soar_lambda": self.amplification, "overretrieve_factor": self.overretrieve}
