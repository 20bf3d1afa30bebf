"""placeholder until the statistics land"""

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


def geometric_interval(values, level: float = 0.95):
    logs = np.log(np.asarray(values, dtype=float))
    center = float(np.median(logs))
    if logs.size < 2:
        return math.exp(center), None, None
    half = 2.26 * logs.std(ddof=1) / math.sqrt(logs.size)
    return math.exp(center), math.exp(center - half), math.exp(center + half)
