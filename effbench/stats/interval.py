"""Intervals. numpy and the standard library only."""

from __future__ import annotations

import math

import numpy as np


def mean_interval(values, level: float = 0.95) -> tuple[float, float]:
    values = np.asarray(values, dtype=float)
    half = 1.96 * values.std(ddof=1) / math.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def median_interval(values, level: float = 0.95) -> tuple[float, float]:
    values = np.sort(np.asarray(values, dtype=float))
    n = values.size
    k = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    return float(values[k]), float(values[n - 1 - k])
