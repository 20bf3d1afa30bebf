"""Selection by bins: what recall it has, and how many bins a recall target needs. Numbers only, no framework.

Chern et al. (arXiv:2206.14286): rows are dealt to L bins, each bin keeps its best row, the answer is taken from the survivors. Where
the k true neighbours lie at random over the bins, each neighbour is lost with the chance that a better one shares its bin.
`expected_recall` is exact for bins of given sizes (a hypergeometric count), also when a bin keeps its K' best ("A Faster Generalized
Two-Stage Approximate Top-K", arXiv:2506.04165); `bound` is the paper's lower bound, the one by which XLA chooses its bins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

TILE = 128  # XLA: values of the last dimension that one instruction handles


def dealt(rows: int, bins: int) -> dict[int, int]:
    """Sizes of the bins and how often they occur, where row j goes to bin j mod `bins`."""
    low, more = divmod(rows, bins)
    return {size: count for size, count in ((low, bins - more), (low + 1, more)) if count and size}


def expected_recall(sizes: Mapping[int, int], k: int, kept: int = 1) -> float:
    """Expected share of the k best rows that survive; `sizes` maps a bin's size to the number of such bins."""
    rows = sum(size * count for size, count in sizes.items())
    if not 1 <= k <= rows:
        raise ValueError(f"k must be between 1 and {rows} (rows in the bins), not {k}")
    if kept < 1:
        raise ValueError(f"a bin keeps at least 1 row, not {kept}")
    return min(1.0, sum(count * _survivors(rows, size, k, kept) for size, count in sizes.items()) / k)


def _survivors(rows: int, size: int, k: int, kept: int) -> float:
    """E[min(H, kept)] with H, the neighbours in one bin of `size` rows, hypergeometric."""
    lost = []  # of h - kept, summed from the small end
    for h in range(kept + 1, min(k, size) + 1):
        if rows - size < k - h:
            continue
        lost.append((h - kept) * math.exp(_choose(size, h) + _choose(rows - size, k - h) - _choose(rows, k)))
    return k * size / rows - math.fsum(lost)


def _choose(n: int, r: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(r + 1) - math.lgamma(n - r + 1)


def bound(bins: int, k: int) -> float:
    """Lower bound (1 - 1/L)^(k-1) of the paper and of XLA, for bins that keep one row. It counts about twice the losses."""
    if bins < 1 or k < 1:
        raise ValueError(f"bins and k must be at least 1, not {bins} and {k}")
    return (1 - 1 / bins) ** (k - 1)


@cache
def bins_for(rows: int, k: int, target: float, kept: int = 1, unit: int = 1) -> int:
    """The fewest bins with expected recall of at least `target`: a power of two times `unit`, or one that leaves a row a bin."""
    checked_target(target)
    bins = unit
    while bins < rows and (bins * kept < min(k, rows) or expected_recall(dealt(rows, bins), k, kept) < target):
        bins *= 2
    return bins


def checked_target(target: float) -> None:
    if not 0 < target <= 1:
        raise ValueError(f"the recall target must lie above 0 and not above 1, it is {target}")


def xla_bins(rows: int, k: int, target: float, tile: int = TILE) -> int:
    """How many bins XLA chooses on a TPU (`ApproxTopKReductionOutputSize`) for scores of rank two."""
    checked_target(target)
    if rows <= tile or target == 1:
        return rows
    if k == 1:
        return tile
    wanted = min(max((1 - k) / math.log(target), tile), rows)
    tiles = -(-rows // tile)
    halvings = min(int(math.log2(rows / wanted)), math.ceil(math.log2(tiles)))
    return -(-tiles // 2**halvings) * tile
