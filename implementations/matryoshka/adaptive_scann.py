"""Adaptive retrieval with ScaNN: the library searches prefixes, the full embedding puts the shortlist in order.

Guo et al., arXiv:1908.10396 (partitions, anisotropic 4-bit codes of pairs of numbers), on the prefixes of Kusupati et al.,
arXiv:2205.13147. `dims = 0` gives the library the full embedding, the arm to beat: codes, lists and re-ranking are otherwise the same.
Left out: prefixes for the partitions alone (AdANNS), spilling, the library's own re-ranking.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from effbench import Bound, Claim, Flops, knob, param

from .judge import unit
from .material import columns
from .retrieval import K, Retriever

# Without scann_docids.pkl, which the library would unpickle.
FILES = (
    "ah_codebook.pb", "datapoint_to_token.npy", "dataset.npy", "hashed_dataset.npy", "scann_assets.pbtxt", "scann_config.pb",
    "serialized_partitioner.pb", "dp_norms.npy",
)  # fmt: skip


class AdaptiveScann(Retriever):
    name = "adaptive-scann"
    version = 1
    backend = "native"

    dims = param(16, sweep=(8, 16, 32, 0))  # of the prefixes that the library indexes; 0 is the full length
    partitions = param(128)
    leaves = knob(16, sweep=(4, 16, 64))
    shortlist = knob(200, sweep=(50, 200))

    claims = (
        Claim(
            text="With ScaNN, up to 16 times less compute at the same recall",
            source="a review post of 2022 on the authors' work; its condition is unknown, and the paper's abstract does not say it",
            untestable="the post, as far as it could be read, states neither data nor lengths nor a recall; nothing in the paper gives 16",
        ),
        Claim(
            text="At equal mAP@10 (99.4 % of the exact full search), ScaNN over prefixes with re-ranking is faster than ScaNN over full "
            "embeddings with the same re-ranking",
            source="our own question; no number of a source is at hand (see the other claim)",
            parts=(
                Bound("serve.latency", "<=", 1.0, over="adaptive-scann", at="quality.relative-map@10 >= .994",
                      params={"embedding": "mrl", "dims": 16}, over_params={"embedding": "mrl", "dims": 0}),
            ),
            size="quick",
        ),
    )  # fmt: skip

    def skip(self, given):
        if reason := super().skip(given):
            return reason
        for module in ("scann", "google.protobuf"):
            try:
                found = importlib.util.find_spec(module) is not None
            except (ImportError, ValueError):  # the parent package is missing or broken
                found = False
            if not found:
                return f"{module.split('.')[0]} is not installed: pip install 'effbench[search]'"
        if self.embedding == "pca":
            return "PCA prefixes are searched by the exact methods only"
        return "" if len(next(iter(given.gallery.values()))) >= 100 else "the library wants at least 100 rows"

    def used(self):
        return self.size(self.dims, "dims"), self.sizes[-1]

    def build(self, given, run):
        if self.embedding not in given.gallery:
            raise ValueError(f"embedding='{self.embedding}' (known: {', '.join(given.gallery)})")
        self.positive("partitions")
        self.hold(given)
        short, _ = self.used()
        with run.part("import"):
            from scann.scann_ops.py import scann_ops_pybind as library
        rows = unit(given.gallery[self.embedding][:, columns(self.embedding, short, self.sizes)])
        builder = library.builder(rows, K, "dot_product").set_n_training_threads(run.threads)
        builder = builder.tree(self.lists(), 1, random_init=False).score_ah(2, anisotropic_quantization_threshold=0.2)

        def create(rows, config, threads, **other):
            """The builder has no argument for a seed; its configuration has."""
            seed = f"clustering_seed: {run.seed % 2**31} min_cluster_size:"
            return library.create_searcher(rows, config.replace("min_cluster_size:", seed, 1), threads, **other)

        self.searcher = builder.set_builder_lambda(create).build()
        self.searcher.set_num_threads(run.threads)

    def hold(self, given):
        self.sizes = given.sizes
        full = columns(self.embedding, self.sizes[-1], self.sizes)
        self.table, self.rows = unit(given.gallery[self.embedding][:, full]), len(given.gallery[self.embedding])

    def lists(self) -> int:
        return min(self.partitions, self.rows // 10)

    def positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    def search(self, queries):
        self.positive("leaves")
        if self.shortlist < K:
            raise ValueError(f"shortlist={self.shortlist} must be at least {K}")
        own, (short, long) = queries[self.embedding], self.used()
        width = columns(self.embedding, long, self.sizes).stop
        if own.ndim != 2 or own.shape[1] != width:
            raise ValueError(f"queries of shape {own.shape} do not fit embeddings of {width} numbers")
        if not np.isfinite(own.sum()):
            raise ValueError("the queries hold NaN or infinity")
        self.run.tally(queries=len(own))
        first = np.ascontiguousarray(unit(own[:, columns(self.embedding, short, self.sizes)]))
        count = min(self.shortlist, self.rows)
        rows, distance = self.searcher.search_batched(first, count, None, min(self.leaves, self.lists()))
        missing, rows = np.isnan(distance), rows.astype(np.int64)
        rows[missing] = 0
        full = unit(own[:, columns(self.embedding, long, self.sizes)])
        scores = (self.table[rows] @ full[:, :, None])[:, :, 0]
        scores[missing] = -np.inf
        best = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        best = np.take_along_axis(best, np.take_along_axis(-scores, best, 1).argsort(1), 1)
        return np.where(np.take_along_axis(missing, best, 1), -1, np.take_along_axis(rows, best, 1))

    def flops(self, phase, case, tally):
        """Centres and re-ranking by product; codes by look-up, as if lists were of one length: no counter looks into the library."""
        if phase == "build":
            return None
        q, (short, long) = tally["queries"], self.used()
        looked = q * self.rows * min(1.0, self.leaves / self.lists()) * short / 2
        executed = 2.0 * q * (self.lists() * short + min(self.shortlist, self.rows) * long)
        return Flops(executed, dense=2.0 * q * self.rows * long, other=2.0 * looked, bytes=looked / 2)

    def save(self, folder):
        """The library's own files as plain bytes in one npz: nothing in it can be unpickled or run."""
        with tempfile.TemporaryDirectory() as place:
            self.searcher.serialize(place, relative_path=True)
            files = {path.name: np.fromfile(path, np.uint8) for path in sorted(Path(place).iterdir()) if path.name in FILES}
        np.savez(folder / "index.npz", **files)

    def load(self, folder, given):
        self.hold(given)
        from scann.scann_ops.py import scann_ops_pybind as library

        with np.load(folder / "index.npz", allow_pickle=False) as file, tempfile.TemporaryDirectory() as place:
            for name in file.files:
                if name not in FILES:
                    raise ValueError(f"{folder / 'index.npz'} holds '{name}', which no index has")
                file[name].tofile(Path(place) / name)
            self.searcher = library.load_searcher(place)
        self.searcher.set_num_threads(self.run.threads)
