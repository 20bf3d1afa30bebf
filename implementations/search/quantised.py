"""What the methods with 4-bit codes share: residuals against partitions, codebooks, encoding, search, and their files.

A method chooses centres and lists (`index`), then calls `quantise`. A point is c + r with its residual r coded in blocks of `width`
dimensions and 16 codewords; its score is <q, c> + <q, code> and, for l2, minus |x|^2 / 2 kept as a float beside the code.
"""

from __future__ import annotations

import numpy as np

from effbench import Flops, knob, param

from . import anisotropic
from .lut16 import WORDS, Lists, Searcher, encode, kernel, pack
from .task import VectorIndex

SLICE = 1 << 16  # rows encoded at once
MOST_BLOCKS = 16384  # sums of that many bytes still fit the kernel's 16 bits, at less than 2 bits an entry
SAVED = ("codes", "ids", "first", "size", "codebook", "bias", "centre_bias", "centres", "vectors", "steps", "norms")


class QuantisedIndex(VectorIndex):
    backend = "native"

    width = param(2, sweep=(2, 4))  # dimensions of a block: 4 bits each
    loss = param("anisotropic")  # or "reconstruction"
    eta = param("integral")  # weight of the parallel error: exact, or "limit" for many dimensions as in the library
    threshold = param(0.2)  # T
    codebooks = param("k-means")  # or "anisotropic": refitted to the loss, as in the paper; the library's default is k-means
    rounds = param(10)  # of coordinate descent at most
    iterations = param(10)  # of k-means
    training = param(50000)  # rows that k-means sees
    rescoring = param("float")  # "int8", or "none": the order of the codes is the answer
    rescored = knob(100, sweep=(20, 40, 80, 160))

    def skip(self, given):
        kernel()  # compiled here if it never was: before the clock of the build starts, and never an exception
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def centred(self, base):
        """The base around its mean for l2 (the ranking stays, numbers get smaller); as it is for the inner product."""
        known = {
            "loss": ("anisotropic", "reconstruction"),
            "eta": ("integral", "limit"),
            "codebooks": ("k-means", "anisotropic"),
            "rescoring": ("float", "int8", "none"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, not '{getattr(self, name)}'")
        if min(self.width, self.rounds, self.iterations, self.training) < 1:
            raise ValueError("width, rounds, iterations and training must be at least 1")
        if not 0 <= self.threshold < 1:  # whether the loss needs it or not: NaN is a mistake
            raise ValueError(f"threshold must lie in [0, 1), not {self.threshold}")
        if -(-self.d // self.width) > MOST_BLOCKS:
            raise ValueError(f"{self.d} dimensions make more than {MOST_BLOCKS} blocks: raise width (now {self.width})")
        self.mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        return base - self.mean if self.metric == "l2" else base

    def sample(self, rows, least=1):
        """A random sample of rows for training; its size is kept as `trained_on`."""
        self.trained_on = min(len(rows), max(self.training, least))
        return rows[np.sort(self.run.rng.permutation(len(rows))[: self.trained_on])]

    def quantise(self, rows, centres, members):
        """Codebook, codes and lists. members: one partition of every row, int64 [n], for each copy."""
        run, n, l2 = self.run, len(rows), self.metric == "l2"
        eta = anisotropic.weights(rows, self.threshold, self.eta, cosine=l2) if self.loss == "anisotropic" else None
        with run.part("codebook"):
            chosen = np.sort(run.rng.permutation(n)[: self.training])
            residuals, directions = self._parts(rows[chosen], centres[members[0][chosen]])
            book = anisotropic.train(residuals, self.width, self.iterations, run.rng)
            if self.codebooks == "anisotropic" and eta is not None:
                for _ in range(3):
                    codes = encode(residuals, directions, eta[chosen], book, self.rounds)
                    book = anisotropic.refit(residuals, directions, eta[chosen], codes, book)
            del residuals, directions
        with run.part("encode"):
            codes = []
            for member in members:
                for start in range(0, n, SLICE):
                    part = slice(start, start + SLICE)
                    residuals, directions = self._parts(rows[part], centres[member[part]])
                    directions, own = (directions, eta[part]) if eta is not None else (None, None)
                    codes.append(encode(residuals, directions, own, book, self.rounds))
            packed, ids, first, size = pack(
                np.concatenate(codes), np.concatenate(members), np.tile(np.arange(n, dtype=np.int32), len(members)), len(centres)
            )
        half = 0.5 * np.einsum("nd,nd->n", rows, rows) if l2 else None
        vectors, steps = (rows, None) if self.rescoring == "float" else (None, None)
        if self.rescoring == "int8":
            steps = np.maximum(np.abs(rows).max(0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
            vectors = np.rint(rows / steps).astype(np.int8)
        self._hold(
            Lists(
                packed, ids, first, size, np.pad(book, ((0, -len(book) % 4), (0, 0), (0, 0))),
                np.where(ids < 0, np.float32(0), half[ids]) if l2 else None,
                0.5 * np.einsum("cd,cd->c", centres, centres) if l2 else None,
                np.ascontiguousarray(centres), len(members), vectors, steps, half if self.rescoring == "int8" else None,
            )
        )  # fmt: skip

    def _parts(self, rows, own):
        """Residuals and unit directions, filled up with zeros to whole blocks."""
        length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
        spare = ((0, 0), (0, -self.d % self.width))
        return np.pad(rows - own, spare), np.pad(rows / np.where(length > 0, length, 1)[:, None], spare)

    def _hold(self, lists):
        self.lists = lists
        self.searcher = Searcher(lists, l2=self.metric == "l2", threads=self.run.threads)

    def nearest(self, queries, k):
        rescored, leaves = self.rescored, getattr(self, "leaves", 1)
        for name, value in (("rescored", rescored), ("leaves", leaves)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")
        queries = queries - self.mean if self.metric == "l2" else np.ascontiguousarray(queries)
        found, points, work = self.searcher.search(queries, k, min(leaves, len(self.lists.size)), min(rescored, self.rows))
        centres = len(queries) * len(self.lists.centres)
        self.run.tally(queries=len(queries), points=points, rescored=work, distances=centres + points + work)
        if self.searcher.level < 0:
            self.run.tally(without_kernel=1)  # the record says that numpy did the kernel's work
        return found

    def flops(self, phase, case, tally):
        """Look-ups and their additions are `other`; the kernel is out of any counter's sight."""
        partitions, d = len(self.lists.centres), self.d
        blocks, width, _ = self.lists.codebook.shape
        if phase == "build":
            seen = self.iterations * self.trained_on + self.lists.copies * self.rows if partitions > 1 else 0
            words = self.iterations * min(self.training, self.rows) + self.lists.copies * self.rows
            return Flops(2 * seen * partitions * d, other=seen * partitions + 5 * words * WORDS * blocks * width)
        queries = tally["queries"]
        coarse = 2 * queries * partitions * d if partitions > 1 else 0
        executed = coarse + 2 * queries * WORDS * blocks * width + 2 * tally["rescored"] * d
        return Flops(executed, useful=executed, dense=2 * queries * self.rows * d, other=tally["points"] * blocks)

    def save(self, folder):
        arrays = {name: array for name in SAVED if (array := getattr(self.lists, name)) is not None}
        np.savez(folder / "index.npz", mean=self.mean, copies=self.lists.copies, **arrays)

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            arrays = dict.fromkeys(SAVED) | {name: file[name] for name in SAVED if name in file}
            self.mean, lists = file["mean"], Lists(**arrays, copies=int(file["copies"]))
        self.trained_on = min(self.rows, self.training)
        self._hold(lists)
