"""Inverted file: k-means partitions the base, a query looks only into the partitions whose centres are nearest.

Sivic and Zisserman, "Video Google" (ICCV 2003); Jegou, Douze and Schmid, "Product quantization for nearest neighbor search"
(TPAMI 2011). `leaves` = number of partitions searched trades recall for speed. All vectors are kept in float32 and scored exactly.
Left out: compressed codes, balanced or hierarchical clustering, search threads of its own, GPU kernels over ragged lists.

A batch is searched partition by partition: queries that look into the same partition share one matrix product over its
contiguous rows. The Python loop runs over visited partitions, never over queries; one query loops over its leaves. On a GPU that
loop is bound by kernel launches: on a small base exact search is faster there.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from effbench import Flops, knob, param

from .kmeans import assign, kmeans
from .selection import CHUNK, MARGIN, rank, smallest
from .task import K, VectorIndex

SCRATCH = 1 << 24  # scores, and numbers of gathered queries, held at once (64 MB each); larger batches are searched in parts


class Ivf(VectorIndex):
    name = "ivf"
    version = 1
    backend = "torch"

    partitions = param(256, sweep=(64, 256, 1024))
    iterations = param(10)  # Lloyd's
    training = param(20000)  # rows that k-means sees, at least one a partition
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def index(self, base, given, run):
        if min(self.partitions, self.iterations, self.training) < 1:
            raise ValueError(
                f"partitions, iterations and training must be at least 1 (ivf has {self.partitions=}, {self.training=})"
            )
        spherical = self.metric != "l2"
        mean = np.zeros(self.d, np.float32) if spherical else base.mean(0, dtype=np.float64).astype(np.float32)
        rows = run.put(base - mean)
        partitions = min(self.partitions, self.rows)
        self.trained_on = min(self.rows, max(self.training, partitions))
        with run.part("kmeans"):
            sample = rows[run.put(np.sort(run.rng.permutation(self.rows)[: self.trained_on]))]
            centres, self.objective = kmeans(sample, partitions, self.iterations, spherical=spherical, rng=run.rng)
        with run.part("assign"):
            member, _ = assign(rows, centres, spherical=spherical)
            order = member.argsort(stable=True)
            sizes = member.bincount(minlength=partitions)
        vectors = rows[order]
        del rows  # a million rows of 768 are 3 GB
        bias = torch.zeros(self.rows) if spherical else 0.5 * torch.einsum("nd,nd->n", vectors, vectors)
        self._hold(vectors, bias.to(vectors.device), mean, order, sizes, centres)

    def _hold(self, vectors, bias, mean, order, sizes, centres):
        arrays = {"vectors": vectors, "bias": bias, "mean": mean, "order": order, "sizes": sizes, "centres": centres}
        for name, array in arrays.items():
            setattr(self, name, array if torch.is_tensor(array) else self.run.put(array))
        edges = [0, *self.sizes.cumsum(0).tolist()]
        # Views made once: slicing in the timed loop would cost as much as a small product.
        self._parts = [(self.bias[a:b], self.vectors[a:b].T, b - a) for a, b in pairwise(edges)]
        self._starts = self.sizes.cumsum(0) - self.sizes
        self._chunks = (self.sizes + CHUNK - 1) // CHUNK
        # Unit centres (inner product) differ from each other by a constant only, so that one formula serves both metrics.
        self._centre_bias = 0.5 * self.centres.square().sum(1) if self.metric == "l2" else torch.zeros_like(self.centres[:, 0])
        self._most = int(self._chunks.max())
        self._scores = self.vectors.new_empty(0)

    def nearest(self, queries, k):
        partitions = len(self.centres)
        if not isinstance(self.leaves, int) or self.leaves < 1:
            raise ValueError(f"leaves must be an integer of at least 1, not {self.leaves!r}")
        leaves = min(self.leaves, partitions)
        if self.metric == "l2":
            queries = queries - self.mean
        at_once = max(1, SCRATCH // (leaves * max(self._most * CHUNK, self.d)))
        if len(queries) <= at_once:
            return self._nearest(queries, leaves, k)
        return torch.cat([self._nearest(part, leaves, k) for part in queries.split(at_once)])

    def _nearest(self, queries, leaves, k):
        count, partitions = len(queries), len(self.centres)
        centre_scores = torch.addmm(self._centre_bias, queries, self.centres.T, alpha=-1)
        probes = centre_scores.topk(leaves, largest=False, sorted=False).indices.view(-1)
        self.run.tally(
            queries=count,
            points=lambda: int(self.sizes[probes].sum()),
            distances=lambda: count * partitions + int(self.sizes[probes].sum()),
        )
        partition, pair = probes.sort()  # pairs (query, leaf), those of one partition side by side
        scores, corner = self._scan(queries, partition, pair // leaves)
        # The chunks of every pair, in the order of the queries; a pair with fewer chunks than the largest ends in dummies.
        chunk = torch.arange(self._most, device=scores.device)
        first = torch.empty_like(corner).scatter_(0, pair, corner)[:, None] + chunk * CHUNK
        first = first.masked_fill_(chunk >= self._chunks[probes][:, None], len(scores) - CHUNK).view(count, -1)
        minima = scores.view(-1, CHUNK).amin(1)[first // CHUNK]
        values, places = smallest(scores, minima, first, 1, k + MARGIN if self.metric == "l2" else k)
        slot = torch.searchsorted(corner, places, right=True) - 1
        rows = self._starts[partition[slot]] + places - corner[slot]
        found = rank(self.metric, queries, self.vectors, values, rows, k)
        return torch.where(found < 0, -1, self.order[found])

    def _scan(self, queries, partition, query):
        """Scores of all pairs (query, partition) in one flat tensor, and the place [pairs] where each pair begins.

        A pair takes whole chunks, filled up with infinity; one chunk of infinities stands at the very end.
        """
        wide = self._chunks[partition] * CHUNK
        ends = wide.cumsum(0)
        size = int(ends[-1]) + CHUNK
        if len(self._scores) < size:  # kept between calls: fresh pages cost as much as the selection
            self._scores = self.vectors.new_empty(size)
        scores = self._scores[:size].fill_(torch.inf)
        visited, counts = partition.unique_consecutive(return_counts=True)
        asking = queries[query].split(counts.tolist()) if len(queries) > 1 else [queries] * len(visited)
        place = 0
        for leaf, those in zip(visited.tolist(), asking):
            bias, rows, length = self._parts[leaf]
            if length:
                stride = -(-length // CHUNK) * CHUNK
                out = scores.as_strided((len(those), length), (stride, 1), place)
                torch.addmm(bias, those, rows, alpha=-1, out=out)
                place += len(those) * stride
        return scores, ends - wide

    def flops(self, phase, case, tally):
        partitions, d = len(self.centres), self.d
        if phase == "build":
            rows_seen = self.iterations * self.trained_on + self.rows
            return Flops(2 * rows_seen * partitions * d, other=rows_seen * (partitions + d))
        coarse, scanned = 2 * tally["queries"] * partitions * d, 2 * tally["points"] * d
        other = 2 * (tally["queries"] * partitions + tally["points"]) + 3 * tally["queries"] * (K + MARGIN) * d
        return Flops(coarse + scanned, useful=coarse + scanned, dense=2 * tally["queries"] * self.rows * d, other=other)

    def save(self, folder):
        names = ("vectors", "bias", "mean", "order", "sizes", "centres")
        np.savez(folder / "index.npz", **{name: self.run.numpy(getattr(self, name)) for name in names})

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(*(file[name] for name in ("vectors", "bias", "mean", "order", "sizes", "centres")))
        self.trained_on = min(self.rows, max(self.training, len(self.centres)))
