"""The Pareto front of two metrics, what it gives at a cost or a quality, and how sure it is who stands on it."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import numpy as np

_SIGN = {"lower": -1.0, "higher": 1.0}
LOWER_HIGHER = ("lower", "higher")


def _good(values: Sequence[float], better: str) -> np.ndarray:
    """Values turned so that more is better."""
    if better not in _SIGN:
        raise ValueError(f"better is 'lower' or 'higher', not {better!r}")
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        raise ValueError("a front needs finite values; leave out what is missing")
    return _SIGN[better] * array


def pareto(cost: Sequence[float], quality: Sequence[float], better: tuple[str, str] = LOWER_HIGHER) -> list[int]:
    """Indices of the points that no other point beats in one metric without losing in the other, cheapest first.

    `better` gives the good direction of `cost` and of `quality`: ("higher", "higher") for throughput against recall. Of
    identical points the first stands for all.
    """
    x, y = _good(cost, better[0]), _good(quality, better[1])
    if x.shape != y.shape:
        raise ValueError(f"{x.size} costs against {y.size} qualities")
    front, best = [], -np.inf
    for i in np.lexsort((np.arange(x.size), -y, -x)):
        if y[i] > best:
            front.append(int(i))
            best = y[i]
    return front


def quality_at(
    budget: float, cost: Sequence[float], quality: Sequence[float], better: tuple[str, str] = LOWER_HIGHER
) -> float | None:
    """Quality that the front gives at a cost, on straight lines over the logarithm of the cost; costs are positive.

    None where the budget is below the cheapest point. With more than the dearest point needs, the quality of that point.
    """
    logs, qualities = _line(cost, quality, better)
    x = -_SIGN[better[0]] * log(budget)  # ascending: the more one spends, the further right
    if not logs.size or x < logs[0]:
        return None
    return float(np.interp(x, logs, qualities))


def cost_at(target: float, cost: Sequence[float], quality: Sequence[float], better: tuple[str, str] = LOWER_HIGHER) -> float | None:
    """The cost at which the front reaches a quality, on the same lines; None where it never does."""
    logs, qualities = _line(cost, quality, better)
    sign = _SIGN[better[1]]
    if not logs.size or sign * target > sign * qualities[-1]:
        return None
    x = float(np.interp(sign * target, sign * qualities, logs))
    return exp(-_SIGN[better[0]] * x)


def _line(cost, quality, better) -> tuple[np.ndarray, np.ndarray]:
    front = pareto(cost, quality, better)
    costs = np.asarray(cost, dtype=float)[front]
    if (costs <= 0).any():
        raise ValueError("costs must be positive: the front is read on their logarithm")
    return -_SIGN[better[0]] * np.log(costs), np.asarray(quality, dtype=float)[front]


def membership(
    cost_samples: Sequence[Sequence[float]],
    quality_samples: Sequence[Sequence[float]],
    better: tuple[str, str] = LOWER_HIGHER,
    *,
    draws: int = 500,
    seed: int = 0,
) -> np.ndarray:
    """Probability that each point stands on the front when its samples are drawn anew: medians of costs, means of qualities.

    One sample of a metric means that it is taken as certain.
    """
    rng = np.random.default_rng(seed)
    costs = np.stack([_resampled(s, np.median, draws, rng) for s in cost_samples])
    qualities = np.stack([_resampled(s, np.mean, draws, rng) for s in quality_samples])
    counts = np.zeros(len(costs))
    for draw in range(draws):
        counts[pareto(costs[:, draw], qualities[:, draw], better)] += 1
    return counts / draws


def _resampled(samples: Sequence[float], statistic, draws: int, rng: np.random.Generator) -> np.ndarray:
    array = np.asarray(samples, dtype=float).ravel()
    return statistic(array[rng.integers(0, array.size, (draws, array.size))], axis=1)
