"""Exact selection on scores, for the torch methods of this area."""

from __future__ import annotations

import torch

CHUNK = 32  # scores behind one minimum
MARGIN = 8  # candidates kept beyond k: rounding of |x|^2/2 - <q,x> swaps near ties around the k-th place


def smallest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and columns of the `count` smallest entries of every row, unordered. Exact; ties are broken arbitrarily.

    A sort-like selection over the full row costs more than the matrix product at small dimensions. One vectorised pass takes
    the minima of strided chunks; the `count` smallest entries lie in the `count` chunks with the smallest minima (were one
    outside, each of those chunks would hold an entry at most as large), and only these are searched.
    """
    rows, columns = scores.shape
    chunks = columns // CHUNK
    if columns % CHUNK or chunks < 2 * count:
        return scores.topk(min(count, columns), largest=False, sorted=False)
    minima = scores.view(rows, CHUNK, chunks).amin(1)
    chosen = minima.topk(count, largest=False, sorted=False).indices
    steps = torch.arange(0, columns, chunks, device=scores.device)
    candidates = (chosen[:, :, None] + steps).view(rows, count * CHUNK)
    values, place = scores.gather(1, candidates).topk(count, largest=False, sorted=False)
    return values, candidates.gather(1, place)


def rank(
    metric: str, queries: torch.Tensor, vectors: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, k: int
) -> torch.Tensor:
    """The k best candidates of every query as row numbers int64 [q, k], nearest first; -1 where the score is infinite.

    `values` and `rows` [q, c] are scores and row numbers in `vectors`. L2 distances are recomputed by differences, because
    |x|^2/2 - <q,x> cancels where neighbours are close; the inner product needs no such care.
    """
    width = min(k + MARGIN if metric == "l2" else k, values.shape[1])
    values, place = values.topk(width, largest=False)
    rows = rows.gather(1, place).masked_fill_(values.isinf(), 0)  # a place without a candidate may name no row at all
    if metric == "l2":
        exact = (vectors[rows] - queries[:, None]).square_().sum(-1)
        values, place = exact.masked_fill_(values.isinf(), torch.inf).topk(min(k, width), largest=False)
        rows = rows.gather(1, place)
    rows.masked_fill_(values.isinf(), -1)
    return torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1)
