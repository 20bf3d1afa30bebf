"""Exact selection on scores, for the torch methods of this area."""

from __future__ import annotations

import torch

CHUNK = 32  # scores behind one minimum
MARGIN = 4  # candidates kept beyond k: rounding of |x|^2/2 - <q,x> swaps near ties around the k-th place


def smallest(
    scores: torch.Tensor, minima: torch.Tensor, first: torch.Tensor, step: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` smallest scores of every query: values and their places in the flat `scores`, both [q, count], unordered.

    A sort-like selection over all scores costs more than their matrix product at small dimensions. Chunk c of query i holds the
    CHUNK scores at first[i, c], first[i, c] + step, ...; minima[i, c] is their minimum. The `count` smallest scores lie in the
    `count` chunks with the smallest minima: were one outside, each of those chunks would hold a score at most as large. So only
    these chunks are searched. Exact; ties are broken arbitrarily. Fewer than `count` columns where there are fewer scores.
    """
    chosen = minima.topk(min(count, minima.shape[1]), largest=False, sorted=False).indices
    offset = torch.arange(0, step * CHUNK, step, device=scores.device)
    places = (first.gather(1, chosen)[:, :, None] + offset).view(len(minima), -1)
    values, at = scores.take(places).topk(min(count, places.shape[1]), largest=False, sorted=False)
    return values, places.gather(1, at)


def rank(
    metric: str, queries: torch.Tensor, vectors: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, k: int
) -> torch.Tensor:
    """The k best candidates of every query as row numbers int64 [q, k], nearest first; -1 where the score is infinite.

    `values` and `rows` [q, c] are scores and row numbers in `vectors`. L2 distances are recomputed by differences, because
    |x|^2/2 - <q,x> cancels where neighbours are close; the inner product needs no such care.
    """
    rows = rows.masked_fill(values.isinf(), 0)  # a place without a candidate may name no row at all
    if metric == "l2":
        exact = vectors[rows].sub_(queries[:, None]).square_().sum(-1)
        values = exact.masked_fill_(values.isinf(), torch.inf)
    values, place = values.topk(min(k, values.shape[1]), largest=False)
    rows = rows.gather(1, place).masked_fill_(values.isinf(), -1)
    return torch.nn.functional.pad(rows, (0, k - rows.shape[1]), value=-1)
