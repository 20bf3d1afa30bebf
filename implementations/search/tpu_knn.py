"""TPU-KNN: every score is computed, but a bin keeps only its best, so that selecting costs next to nothing.

Chern et al., "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s" (NeurIPS 2022), arXiv:2206.14286. Row j goes to bin j mod L; L is
the smallest power of two with the recall wanted, by the exact formula (`partial_reduce`). The k best survivors are rescored exactly.
`kept` > 1 is the generalised form (arXiv:2506.04165). Not fused: a block of scores goes through the cache on a CPU, through memory
on a GPU (`tpu-knn-fused` is the answer there). Rows a multiple of L apart collide: shuffle a base that has such a period.
The base is held twice, in the file's order and dealt out. Left out: lower precision, sharding.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Bound, Claim, Flops, knob, param

from .exact import score
from .partial_reduce import bins_for, bound, checked_target, dealt, expected_recall
from .selection import CHUNK, MARGIN, rank
from .task import K, VectorIndex

GROUP = 8  # scores behind one stored minimum; the survivor is found among them afterwards
# At once: queries, scores (1 MB on a CPU, still cached when they are reduced), minima. More bins than `bins` cost nothing up to there.
CPU = {"queries": 256, "scores": 1 << 18, "minima": 1 << 23, "bins": 256}
CUDA = {"queries": 4096, "scores": 1 << 28, "minima": 1 << 28, "bins": 256}


class TpuKnn(VectorIndex):
    name = "tpu-knn"
    version = 1
    backend = "torch"
    deterministic = True

    bins = param(0)  # L; 0: from the recall target
    kept = param(1, sweep=(1, 2, 4))  # K', rows that a bin keeps
    recall_target = knob(0.95, sweep=(0.95, 0.99, 0.999))

    claims = (
        Claim(
            text="Selecting through bins is as fast as a library's exact search of all rows, at recall 0.95 in batches",
            source="our own bar on a CPU, where the bottleneck that Chern et al. (arXiv:2206.14286) remove is small; not theirs",
            parts=(
                Bound("serve.throughput", ">=", 0.9, over="faiss-flat", at="quality.recall@10 >= .95", case="batch-256"),
                Bound("serve.throughput", ">=", 1.0, over="exact", at="quality.recall@10 >= .95", case="batch-256"),
            ),
            partly=(0,),
            size="quick",
        ),
        Claim(
            text="Recall is known in advance: at a target of 0.95 the mean over queries is at least that, whatever the data",
            source="Chern et al. (arXiv:2206.14286), abstract: an analytical guarantee on recall; the target is ours",
            parts=(Bound("quality.recall@10", ">=", 0.95),),
            size="quick",
        ),
    )

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def index(self, base, given, run):
        if self.bins < 0 or self.kept < 1:
            raise ValueError(f"bins must be 0 (from the recall target) or more, kept at least 1, not {self.bins} and {self.kept}")
        mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        base = base - mean
        bias = 0.5 * np.einsum("nd,nd->n", base, base) if self.metric == "l2" else np.zeros(self.rows, np.float32)
        self._hold(base, bias, mean)

    def _hold(self, vectors, bias, mean):
        self.plain, self.bias, self.mean = (self.run.put(array.astype(np.float32)) for array in (vectors, bias, mean))
        self.limits = CUDA if self.run.device == "cuda" else CPU
        self._scratch = {}
        self._deal(self.bins_used(min(K, self.rows)))

    def _deal(self, bins):
        """Groups of rows side by side: group i holds rows i, i + n, i + 2n, ... with n the number of groups, a multiple of `bins`.

        So row j is in bin j mod `bins`, a group is in one bin, and its rows are read in one piece.
        """
        self.groups = -(-self.rows // (GROUP * bins)) * bins
        spare = self.groups * GROUP - self.rows
        vectors = torch.nn.functional.pad(self.plain, (0, 0, 0, spare))
        self.dealt = vectors.view(GROUP, self.groups, self.d).transpose(0, 1).reshape(-1, self.d)
        self.dealt_bias = torch.nn.functional.pad(self.bias, (0, spare), value=torch.inf).view(GROUP, -1).T.reshape(-1, 1)

    def bins_used(self, k: int) -> int:
        """L for an answer of k rows."""
        checked_target(self.recall_target)
        bins = self.bins or bins_for(self.rows, k, self.recall_target, self.kept, self.limits["bins"])
        if bins * self.kept < k:
            raise ValueError(f"{bins} bins that keep {self.kept} cannot answer k = {k}: raise `bins` or leave it at 0")
        return bins

    def expected(self, k: int) -> dict[str, float]:
        """What is known in advance: bins, the expected recall, and the lower bound of the paper and of XLA (for kept = 1)."""
        k = min(k, self.rows)
        bins = self.bins_used(k)
        return {"bins": bins, "recall": expected_recall(dealt(self.rows, bins), k, self.kept), "bound": bound(bins, k)}

    @property
    def notes(self):
        known = self.expected(K)
        beside = f"; at least {known['bound']:.4f} by XLA's bound" if self.kept == 1 else ""
        return [
            f"recall target {self.recall_target}: {known['bins']} bins, {known['recall']:.4f} expected for random places{beside}"
        ]

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries))
        bins = self.bins_used(k)
        if self.groups % bins or self.groups * GROUP - self.rows >= GROUP * bins:
            self._deal(bins)
        found = [self._nearest(part, k, bins) for part in queries.split(self.limits["queries"])]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _nearest(self, queries, k, bins):
        if self.metric == "l2":
            queries = queries - self.mean
        count = min(k + MARGIN if self.metric == "l2" else k, self.kept * bins)
        groups = self._reduce(queries, bins, count)
        # The minimum of a group is known, its row is not yet: the rows of the chosen groups are scored again.
        near = self._room("near", groups.numel() * GROUP * self.d).view(-1, GROUP * self.d)
        torch.index_select(self.dealt.view(-1, GROUP * self.d), 0, groups.view(-1), out=near)
        near = near.view(len(queries), -1, self.d)
        rows = groups[:, :, None] + torch.arange(0, GROUP * self.groups, self.groups, device=groups.device)
        bias = self.dealt_bias.view(-1, GROUP).index_select(0, groups.view(-1)).view(len(queries), -1, 1)
        scores = torch.baddbmm(bias, near, queries[:, :, None], alpha=-1).view(rows.shape)
        self.run.tally(rescored=rows.numel())
        if self.kept == 1:
            scores, best = scores.min(2)
            rows = rows.gather(2, best[:, :, None])[:, :, 0]
        else:
            scores = best_of_each(scores.flatten(1), (rows % bins).flatten(1), self.kept)
            scores, place = scores.topk(count, largest=False, sorted=False)
            rows = rows.flatten(1).gather(1, place)
        return rank(self.metric, queries, self.plain, scores, rows, k)

    def _reduce(self, queries, bins, count):
        """The `count` best of the groups that are among the `kept` best of their bin, [q, count]."""
        stretch = max(1, self.limits["minima"] // (len(queries) * bins)) * bins
        starts = range(0, self.groups, stretch)
        found = [self._best(queries, bins, count, start, min(start + stretch, self.groups)) for start in starts]
        if len(found) == 1:
            return found[0][1]
        values, groups = (torch.cat(parts, 1) for parts in zip(*found))
        place = best_of_each(values, groups % bins, self.kept).topk(count, largest=False, sorted=False).indices
        return groups.gather(1, place)

    def _best(self, queries, bins, count, start, stop):
        """As `_reduce`, for the groups from start to stop: minima and groups.

        Bins first, by values alone; where in its bin a winner stands is asked of the few bins that were chosen.
        """
        minima = self._minima(queries, start, stop).view(-1, bins, len(queries))
        column = minima.amin(0).T.topk(min(count, bins), largest=False, sorted=False).indices
        chosen = minima.gather(1, column.T.expand(len(minima), -1, -1)).transpose(0, 2)  # [q, count, groups of the bin]
        values, number = chosen.min(2, keepdim=True) if self.kept == 1 else chosen.topk(min(self.kept, len(minima)), largest=False)
        groups = (number * bins + column[:, :, None]).flatten(1) + start
        values, place = values.flatten(1).topk(min(count, groups.shape[1]), largest=False, sorted=False)
        return values, groups.gather(1, place)

    def _minima(self, queries, start, stop):
        """Minima of the groups from start to stop, [groups, q]: the only trace that the scores leave."""
        q = len(queries)
        minima = self._room("minima", (stop - start) * q).view(-1, q)
        step = min(max(1, self.limits["scores"] // (GROUP * q * CHUNK)) * CHUNK, stop - start)
        room = self._room("scores", step * GROUP * q)
        column = -queries.T.contiguous()
        whole = self.rows - (GROUP - 1) * self.groups  # groups from here on hold spare rows, which the bias keeps from winning
        for left in range(start, stop, step):
            right = min(left + step, stop)
            part = slice(left * GROUP, right * GROUP)
            block = room[: (right - left) * GROUP * q].view(-1, GROUP, q)
            vectors, bias = self.dealt[part], self.dealt_bias[part]
            if q == 1 and len(vectors) % CHUNK == 0:
                score(queries, vectors, bias[:, 0], block.view(1, -1))  # has a kernel for one query
            elif self.metric == "l2" or right > whole:
                torch.addmm(bias, vectors, column, out=block.view(-1, q))
            else:
                torch.mm(vectors, column, out=block.view(-1, q))
            torch.amin(block, 1, out=minima[left - start : right - start])
        return minima

    def _room(self, name, count):
        """Scratch space kept between calls: fresh pages cost as much as the selection."""
        if name not in self._scratch or self._scratch[name].numel() < count:
            self._scratch[name] = self.plain.new_empty(count)
        return self._scratch[name][:count]

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        queries = tally["queries"]
        product = 2 * queries * self.rows * self.d
        executed = 2 * self.d * (queries * GROUP * self.groups + tally["rescored"])
        other = queries * (2 * self.rows + 3 * (K + MARGIN) * self.d)  # bias and minimum per score; recomputed distances
        return Flops(executed, useful=product, dense=product, other=other)

    def save(self, folder):
        np.savez(folder / "index.npz", **{name: self.run.numpy(getattr(self, name)) for name in ("plain", "bias", "mean")})

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["plain"], file["bias"], file["mean"])


def best_of_each(scores: torch.Tensor, bins: torch.Tensor, kept: int) -> torch.Tensor:
    """`scores` [q, c] with infinity wherever `kept` better ones of the row share the bin; `bins` [q, c]."""
    order = scores.argsort(dim=1, stable=True)
    order = order.gather(1, bins.gather(1, order).argsort(dim=1, stable=True))  # by bin, within a bin best first
    own = bins.gather(1, order)
    place = torch.arange(own.shape[1], device=own.device).expand_as(own)
    new = torch.ones_like(own, dtype=torch.bool)
    new[:, 1:] = own[:, 1:] != own[:, :-1]
    within = place - torch.where(new, place, 0).cummax(1).values
    return scores.scatter(1, order, scores.gather(1, order).masked_fill(within >= kept, torch.inf))
