"""Inverted file: k-means partitions the base, a query looks only into the partitions whose centres are nearest.

Sivic and Zisserman, "Video Google" (ICCV 2003); Jegou, Douze and Schmid, "Product quantization for nearest neighbor search"
(TPAMI 2011). `leaves` = number of partitions searched trades recall for speed. All vectors are kept in float32 and scored exactly.
Left out: compressed codes, balanced or hierarchical clustering, search threads of its own, GPU kernels over ragged lists.

A batch is searched partition by partition: queries that look into the same partition share one matrix product over its
contiguous rows. The Python loop runs over visited partitions, never over queries; one query loops over its leaves.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Flops, knob, param

from .kmeans import assign, kmeans
from .selection import CHUNK, MARGIN, rank, smallest
from .task import K, VectorIndex

SCRATCH = 1 << 24  # scores held at once (64 MB); more queries than fit are searched in parts


class Ivf(VectorIndex):
    name = "ivf"
    version = 1
    backend = "torch"

    partitions = param(256, sweep=(64, 256, 1024))
    iterations = param(10)  # Lloyd's
    training = param(20000)  # rows that k-means sees, at least one a partition
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32, 64))

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
        bias = torch.zeros(self.rows) if spherical else 0.5 * rows[order].square().sum(1)
        self._hold(rows[order], bias.to(rows.device), mean, order, sizes, centres)

    def _hold(self, vectors, bias, mean, order, sizes, centres):
        arrays = {"vectors": vectors, "bias": bias, "mean": mean, "order": order, "sizes": sizes, "centres": centres}
        for name, array in arrays.items():
            setattr(self, name, array if torch.is_tensor(array) else self.run.put(array))
        self.starts = self.sizes.cumsum(0) - self.sizes
        self._edges = [0, *self.sizes.cumsum(0).tolist()]
        # Unit centres (inner product) differ from each other by a constant only, so that one formula serves both metrics.
        self._centre_bias = 0.5 * self.centres.square().sum(1) if self.metric == "l2" else torch.zeros_like(self.centres[:, 0])
        self._width = -(-int(self.sizes.max()) // CHUNK) * CHUNK  # scores of one (query, partition) pair
        self._scratch = self.vectors.new_empty(0)

    def nearest(self, queries, k):
        partitions = len(self.centres)
        if not isinstance(self.leaves, int) or self.leaves < 1:
            raise ValueError(f"leaves must be an integer of at least 1, not {self.leaves!r}")
        leaves = min(self.leaves, partitions)
        if self.metric == "l2":
            queries = queries - self.mean
        at_once = max(1, SCRATCH // (leaves * self._width))
        if len(queries) <= at_once:
            return self._nearest(queries, leaves, k)
        return torch.cat([self._nearest(part, leaves, k) for part in queries.split(at_once)])

    def _nearest(self, queries, leaves, k):
        count = len(queries)
        centre_scores = torch.addmm(self._centre_bias, queries, self.centres.T, alpha=-1)
        probes = centre_scores.topk(leaves, largest=False, sorted=False).indices.view(-1)
        self.run.tally(queries=count, points=lambda: int(self.sizes[probes].sum()))
        partition, pair = probes.sort()  # pairs (query, leaf), those of one partition side by side
        scores = self._scan(queries, partition, pair // leaves)
        value, column = smallest(scores, k + MARGIN)
        row = column + self.starts[partition][:, None]
        values, rows = torch.empty_like(value), torch.empty_like(row)
        values[pair], rows[pair] = value, row
        values, rows = values.view(count, -1), rows.view(count, -1)
        found = rank(self.metric, queries, self.vectors, values, rows, k)
        return torch.where(found < 0, -1, self.order[found])

    def _scan(self, queries, partition, query):
        """Scores [pairs, width] of every (query, partition) pair, sorted by partition; infinity beyond a partition's end."""
        pairs = len(partition)
        if self._scratch.numel() < pairs * self._width:
            self._scratch = self.vectors.new_empty(pairs * self._width)
        scores = self._scratch[: pairs * self._width].view(pairs, self._width)
        visited, counts = partition.unique_consecutive(return_counts=True)
        stop = 0
        for leaf, pairs_here in zip(visited.tolist(), counts.tolist()):
            start, stop = stop, stop + pairs_here
            first, last = self._edges[leaf], self._edges[leaf + 1]
            if first < last:
                asking = queries if len(queries) == 1 else queries[query[start:stop]]
                torch.addmm(
                    self.bias[first:last], asking, self.vectors[first:last].T, alpha=-1, out=scores[start:stop, : last - first]
                )
            scores[start:stop, last - first :] = torch.inf
        return scores

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
