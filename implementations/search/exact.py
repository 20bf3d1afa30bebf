"""Exact search: every score by blocked matrix products, an exact selection, no index.

The honest baseline of the area. L2 is ranked by |x|^2/2 - <q,x>, one matrix product with a fused bias; vectors are centred first and
the winners' distances recomputed by differences, so that cancellation cannot reorder them. The selection reads chunk minima
(the "partial reduce" of Chern et al., arXiv:2206.14286), but keeps as many chunks as needed to stay exact.
Left out: lower precision, several threads of its own, a fused kernel.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Flops

from .selection import CHUNK, MARGIN, rank, smallest
from .task import K, VectorIndex

CPU_BLOCK = 8192  # base rows at once: 256 queries x 8192 scores are 8 MB, read again while still in the last-level cache
CUDA_BLOCK = 131072
QUERIES = 1024  # queries at once, which bounds the scores held in memory


class Exact(VectorIndex):
    name = "exact"
    version = 1
    backend = "torch"
    deterministic = True

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def index(self, base, given, run):
        mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        base = base - mean
        bias = 0.5 * np.einsum("nd,nd->n", base, base) if self.metric == "l2" else np.zeros(self.rows, np.float32)
        spare = -self.rows % CHUNK  # rows that never win, so that every block is a whole number of chunks
        self._hold(np.pad(base, ((0, spare), (0, 0))), np.pad(bias, (0, spare), constant_values=np.inf), mean)

    def _hold(self, vectors, bias, mean):
        self.vectors, self.bias, self.mean = (self.run.put(array.astype(np.float32)) for array in (vectors, bias, mean))
        self.block = CUDA_BLOCK if self.vectors.is_cuda else CPU_BLOCK
        self._scratch = self.vectors.new_empty(0)

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries))
        if len(queries) <= QUERIES:
            return self._nearest(queries, k)
        return torch.cat([self._nearest(part, k) for part in queries.split(QUERIES)])

    def _nearest(self, queries, k):
        if self.metric == "l2":
            queries = queries - self.mean
        values, rows = [], []
        for start in range(0, len(self.vectors), self.block):
            part = slice(start, start + self.block)
            scores = self._scores(len(queries), len(self.bias[part]))
            torch.addmm(self.bias[part], queries, self.vectors[part].T, alpha=-1, out=scores)
            value, column = smallest(scores, k + MARGIN)
            values.append(value)
            rows.append(column + start)
        return rank(self.metric, queries, self.vectors, torch.cat(values, 1), torch.cat(rows, 1), k)

    def _scores(self, queries: int, rows: int) -> torch.Tensor:
        """Memory for scores, kept between calls: fresh pages cost as much as the selection."""
        if self._scratch.numel() < queries * rows:
            self._scratch = self.vectors.new_empty(queries * rows)
        return self._scratch[: queries * rows].view(queries, rows)

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        queries, padded = tally["queries"], len(self.vectors)
        product = 2 * queries * self.rows * self.d
        other = queries * (2 * padded + 3 * (K + MARGIN) * self.d)  # bias and minimum per score; recomputed distances
        return Flops(2 * queries * padded * self.d, useful=product, dense=product, other=other)

    def save(self, folder):
        arrays = {name: self.run.numpy(getattr(self, name)) for name in ("vectors", "bias", "mean")}
        np.savez(folder / "index.npz", **arrays)

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["vectors"], file["bias"], file["mean"])
