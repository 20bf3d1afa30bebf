"""Lloyd's k-means on torch tensors, plain and spherical."""

from __future__ import annotations

import torch

ROWS = 16384  # rows assigned at once, which bounds the scores held in memory


def assign(rows: torch.Tensor, centres: torch.Tensor, *, spherical: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest centre of every row, int64 [n], and its cost [n]: squared distance, or minus the inner product."""
    bias = torch.zeros_like(centres[:, 0]) if spherical else 0.5 * centres.square().sum(1)
    best = [torch.addmm(bias, part, centres.T, alpha=-1).min(1) for part in rows.split(ROWS)]
    member, cost = torch.cat([b.indices for b in best]), torch.cat([b.values for b in best])
    return member, cost if spherical else (2 * cost + rows.square().sum(1)).clamp_(min=0)


def kmeans(rows: torch.Tensor, count: int, iterations: int, *, spherical: bool, rng) -> tuple[torch.Tensor, list[float]]:
    """Centres [count, d] and the mean cost before each update, which never increases.

    Starts from distinct random rows. A centre that lost all its rows moves to one of the rows that are served worst, which
    cannot raise the cost of the next assignment. Spherical centres have unit length and are assigned by inner product.
    """
    if not 1 <= count <= len(rows):
        raise ValueError(f"k-means of {len(rows)} rows can have 1 to {len(rows)} centres, not {count}")
    centres = rows[torch.from_numpy(rng.permutation(len(rows))[:count]).to(rows.device)]
    if spherical:
        centres = torch.nn.functional.normalize(centres)
    objective = []
    for _ in range(iterations):
        member, cost = assign(rows, centres, spherical=spherical)
        objective.append(float(cost.mean(dtype=torch.float64)))
        sums = torch.zeros_like(centres).index_add_(0, member, rows)
        sizes = member.bincount(minlength=count)
        empty = (sizes == 0).nonzero()[:, 0]
        centres = sums / sizes.clamp(min=1)[:, None]
        centres[empty] = rows[cost.topk(len(empty)).indices]
        if spherical:
            centres = torch.nn.functional.normalize(centres)
    return centres, objective
