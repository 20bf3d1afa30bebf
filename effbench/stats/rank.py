"""Ranks that do not pretend: methods whose intervals overlap share a rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rank:
    """`best` and `worst` place that the intervals allow; equal where the place is certain."""

    best: int
    worst: int

    def __str__(self) -> str:
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


def ranks(lows: Sequence[float], highs: Sequence[float], better: str = "lower") -> list[Rank]:
    """Rank of each interval: 1 + how many lie wholly on its better side, to n - how many lie wholly on its worse side.

    Overlap is not transitive, so ranks are ranges rather than groups. A missing interval (nan) is beaten by nobody and beats
    nobody. Intervals that touch overlap.
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better is 'lower' or 'higher', not {better!r}")
    if len(lows) != len(highs):
        raise ValueError(f"{len(lows)} lows against {len(highs)} highs")
    if better == "higher":
        lows, highs = [-high for high in highs], [-low for low in lows]
    low, high = np.asarray(lows, dtype=float), np.asarray(highs, dtype=float)
    ends, starts = np.sort(high[~np.isnan(high)]), np.sort(low[~np.isnan(low)])
    # How many end below where this one starts, and how many start above where this one ends; nan compares with nobody.
    before = np.where(np.isnan(low), 0, np.searchsorted(ends, low, "left"))
    after = np.where(np.isnan(high), 0, starts.size - np.searchsorted(starts, high, "right"))
    return [Rank(1 + int(first), low.size - int(last)) for first, last in zip(before, after)]
