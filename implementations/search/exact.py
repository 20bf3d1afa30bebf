"""Exact search: every score by blocked matrix products, an exact selection, no index.

The honest baseline of the area. L2 is ranked by |x|^2/2 - <q,x>, one matrix product with a fused bias; vectors are centred
first and the winners' distances recomputed by differences, so that cancellation cannot reorder them. The selection reads chunk
minima (the "partial reduce" of Chern et al., arXiv:2206.14286), but keeps as many chunks as needed to stay exact.
Left out: lower precision, several threads of its own, a fused kernel.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Flops

from .selection import CHUNK, MARGIN, rank, smallest
from .task import K, VectorIndex

BLOCK = 4096  # base rows of one product: 256 queries x 4096 scores are 4 MB, still cached when their minima are taken
SCRATCH = 1 << 24  # scores held at once, 64 MB: the selection runs once over as many blocks as fit
QUERIES = 1024  # queries at once
CUDA = {"block": 1 << 17, "scratch": 1 << 28}


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
        self._hold(base, bias, mean)

    def _hold(self, vectors, bias, mean):
        """Equal blocks of whole chunks; the spare rows at the end have an infinite bias and never win."""
        cuda = self.run.device == "cuda"
        blocks = -(-self.rows // (CUDA["block"] if cuda else BLOCK))
        self.block = -(-self.rows // (blocks * CHUNK)) * CHUNK
        spare = blocks * self.block - self.rows
        self.vectors = self.run.put(np.pad(vectors, ((0, spare), (0, 0))))
        self.bias = self.run.put(np.pad(bias, (0, spare), constant_values=np.inf))
        self.mean = self.run.put(mean)
        self.limit = CUDA["scratch"] if cuda else SCRATCH
        self._scratch = self.vectors.new_empty(0)

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries), distances=len(queries) * self.rows)
        if len(queries) <= QUERIES:
            return self._nearest(queries, k)
        return torch.cat([self._nearest(part, k) for part in queries.split(QUERIES)])

    def _nearest(self, queries, k):
        if self.metric == "l2":
            queries = queries - self.mean
        span = max(1, self.limit // (len(queries) * self.block)) * self.block
        count = k + MARGIN if self.metric == "l2" else k
        found = [
            self._span(queries, start, min(start + span, len(self.vectors)), count) for start in range(0, len(self.vectors), span)
        ]
        values, rows = found[0] if len(found) == 1 else (torch.cat(parts, 1) for parts in zip(*found))
        if values.shape[1] > count:
            values, place = values.topk(count, largest=False, sorted=False)
            rows = rows.gather(1, place)
        return rank(self.metric, queries, self.vectors, values, rows, k)

    def _span(self, queries, start, stop, count):
        """The best `count` of the rows from start to stop, whole blocks: values and row numbers."""
        q, block = len(queries), self.block
        blocks, chunks = (stop - start) // block, block // CHUNK
        if self._scratch.numel() < blocks * q * block:  # kept between calls: fresh pages cost as much as the selection
            self._scratch = self.vectors.new_empty(blocks * q * block)
        scores = self._scratch[: blocks * q * block].view(blocks, q, block)
        minima = self.vectors.new_empty(blocks, q, chunks)
        for number in range(blocks):
            part = slice(start + number * block, start + (number + 1) * block)
            score(queries, self.vectors[part], self.bias[part], scores[number])
            torch.amin(scores[number].view(q, CHUNK, chunks), 1, out=minima[number])
        corner = torch.arange(0, blocks * q * block, block, device=scores.device).view(blocks, q, 1)
        first = (corner + torch.arange(chunks, device=scores.device)).transpose(0, 1).reshape(q, -1)
        values, places = smallest(scores, minima.transpose(0, 1).reshape(q, -1), first, chunks, count)
        return values, places // (q * block) * block + places % block + start

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        queries, padded = tally["queries"], len(self.vectors)
        product = 2 * queries * self.rows * self.d
        other = queries * (2 * padded + 3 * (K + MARGIN) * self.d)  # bias and minimum per score; recomputed distances
        return Flops(2 * queries * padded * self.d, useful=product, dense=product, other=other)

    def save(self, folder):
        names = ("vectors", "bias")
        np.savez(
            folder / "index.npz",
            mean=self.run.numpy(self.mean),
            **{n: self.run.numpy(getattr(self, n))[: self.rows] for n in names},
        )

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["vectors"], file["bias"], file["mean"])


def score(queries, vectors, bias, out) -> None:
    """out[i, j] = bias[j] - <queries[i], vectors[j]>, written in place."""
    if len(queries) > 1:
        torch.addmm(bias, queries, vectors.T, alpha=-1, out=out)
        return
    # One query is a matrix-vector product; the batched kernel over groups of rows reads memory up to four times faster.
    groups = len(vectors) // CHUNK
    column = queries.expand(groups, 1, -1).transpose(1, 2)
    torch.baddbmm(bias.view(groups, CHUNK, 1), vectors.view(groups, CHUNK, -1), column, alpha=-1, out=out.view(groups, CHUNK, 1))
