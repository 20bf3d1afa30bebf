"""How much cheaper one front is than another at the same quality, averaged over the qualities that both reach.

The average is that of Bjontegaard's delta rate (VCEG-M33, 2001) with straight lines over the logarithm of the cost instead of a
fitted cubic, which overshoots between few points. The interval comes from drawing every point anew from its samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, nan

import numpy as np

GRID = 100  # qualities at which the two fronts are compared: the middles of equal parts of the common range
Z95 = 1.959964


@dataclass(frozen=True)
class Point:
    """One setting of an arm: seed -> (value, low, high). `cost` is positive; an interval may be the value itself."""

    cost: Mapping[int, tuple[float, float, float]]
    quality: Mapping[int, tuple[float, float, float]]


@dataclass(frozen=True)
class EqualQuality:
    """`ratio`: cost of the arm over cost of the baseline (nan where nothing is shared), `low`..`high` its 95 % interval.

    `between`: the qualities over which it was averaged. `reason` says why ratio or interval are missing.
    """

    ratio: float
    low: float
    high: float
    between: tuple[float, float]
    reason: str = ""

    @property
    def known(self) -> bool:
        return self.ratio == self.ratio

    @property
    def sure(self) -> bool:
        return self.low == self.low and self.high == self.high


def front_ratio(
    arm: Sequence[Point], baseline: Sequence[Point], better: tuple[str, str] = ("lower", "higher"), *, draws: int = 200, seed: int = 0
) -> EqualQuality:
    """The average cost ratio of two fronts over their common range of quality.

    Where both have the same seeds, both are drawn with the same ones. A front of one point has no range: see `at_quality`.
    """
    centre, low, high = _compare(_centre(arm, better), _centre(baseline, better))
    if not centre.size or np.isnan(centre[0]):
        why = "the fronts share no range of quality" if min(_width(arm, better), _width(baseline, better)) > 1 else "a front of one point"
        return EqualQuality(nan, nan, nan, (nan, nan), why)
    sign = 1.0 if better[1] == "higher" else -1.0
    between = tuple(sorted((sign * float(low[0]), sign * float(high[0]))))
    left, right = _draws(arm, baseline, better, draws, seed)
    found, _, _ = _compare(left, right)
    return _interval(float(centre[0]), found, between)


def at_quality(
    arm: Sequence[Point], baseline: Sequence[Point], target: float, better: tuple[str, str] = ("lower", "higher"), *,
    draws: int = 200, seed: int = 0,
) -> EqualQuality:  # fmt: skip
    """The cost ratio at (at least) one quality; a front's cheapest point also stands for every lower quality."""
    sign = 1.0 if better[1] == "higher" else -1.0
    grid = np.array([[sign * target]])
    centre = _cost_at(_centre(arm, better), grid) - _cost_at(_centre(baseline, better), grid)
    between = (float(target), float(target))
    if np.isnan(centre[0, 0]):
        return EqualQuality(nan, nan, nan, between, "not reached")
    left, right = _draws(arm, baseline, better, draws, seed)
    grid = np.full((draws, 1), sign * target)
    return _interval(float(centre[0, 0]), (_cost_at(left, grid) - _cost_at(right, grid))[:, 0], between)


def _interval(centre: float, found: np.ndarray, between) -> EqualQuality:
    known = found[~np.isnan(found)]
    if known.size < 0.95 * found.size:
        return EqualQuality(exp(centre), nan, nan, between, "in some draws the fronts share no quality")
    low, high = np.quantile(known, [0.025, 0.975])
    # The percentiles of few seeds may lie beside the estimate: it belongs to its own interval.
    return EqualQuality(exp(centre), exp(min(low, centre)), exp(max(high, centre)), between)


# -- fronts as arrays: (draws, points) of log cost and of quality, both turned so that cost is low and quality high ---------------


def _centre(points: Sequence[Point], better) -> tuple[np.ndarray, np.ndarray]:
    costs = [np.median([value[0] for value in point.cost.values()]) for point in points]
    qualities = [np.mean([value[0] for value in point.quality.values()]) for point in points]
    return _turned(np.array([costs]), np.array([qualities]), better)


def _turned(costs: np.ndarray, qualities: np.ndarray, better) -> tuple[np.ndarray, np.ndarray]:
    if not (costs > 0).all() or not np.isfinite(costs).all() or not np.isfinite(qualities).all():
        raise ValueError("costs must be positive and finite, qualities finite")
    logs = np.log(costs) * (1.0 if better[0] == "lower" else -1.0)
    return logs, qualities * (1.0 if better[1] == "higher" else -1.0)


def _width(points: Sequence[Point], better) -> int:
    logs, qualities = _centre(points, better)
    return int(_on_front(*_by_cost(logs, qualities))[0].sum())


def _draws(arm, baseline, better, draws: int, seed: int):
    rng = np.random.default_rng(seed)
    seeds = [sorted({s for point in points for s in point.cost}) for points in (arm, baseline)]
    first = rng.integers(0, len(seeds[0]), (draws, len(seeds[0])))
    same = seeds[0] == seeds[1]
    second = first if same else rng.integers(0, len(seeds[1]), (draws, len(seeds[1])))
    return tuple(
        _turned(*_resampled(points, own, chosen, rng), better)
        for points, own, chosen in ((arm, seeds[0], first), (baseline, seeds[1], second))
    )


def _resampled(points: Sequence[Point], seeds: list[int], chosen: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Costs and qualities (draws, points): seeds drawn with replacement, and within a seed the point from its interval."""
    costs, qualities = [], []
    for point in points:
        own = [s for s in seeds if s in point.cost and s in point.quality]
        places = np.array([own.index(s) if s in own else -1 for s in seeds])[chosen]
        # A seed that this point lacks is replaced by one that it has.
        places = np.where(places < 0, chosen % len(own), places)
        cost = np.array([point.cost[s] for s in own])
        spread = np.log(np.maximum(cost[:, 2], cost[:, 0]) / np.minimum(np.maximum(cost[:, 1], 1e-300), cost[:, 0])) / (2 * Z95)
        noise = rng.normal(size=places.shape) * spread[places]
        costs.append(np.exp(np.median(np.log(cost[:, 0])[places] + noise, axis=1)))
        quality = np.array([point.quality[s] for s in own])
        half = (quality[:, 2] - quality[:, 1]) / (2 * Z95)
        qualities.append((quality[:, 0][places] + rng.normal(size=places.shape) * half[places]).mean(axis=1))
    return np.stack(costs, axis=1), np.stack(qualities, axis=1)


def _by_cost(logs: np.ndarray, qualities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((-qualities, logs), axis=1)
    return np.take_along_axis(logs, order, 1), np.take_along_axis(qualities, order, 1)


def _on_front(logs: np.ndarray, qualities: np.ndarray) -> np.ndarray:
    best = np.maximum.accumulate(qualities, axis=1)
    first = np.ones((len(best), 1), dtype=bool)
    return np.concatenate([first, qualities[:, 1:] > best[:, :-1]], axis=1)


def _ends(front: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Quality of the cheapest and of the dearest point of each draw's front."""
    logs, qualities = _by_cost(*front)
    return qualities[:, 0], qualities.max(axis=1)


def _compare(arm, baseline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean log ratio of each draw over its own common range, and that range; nan where there is none."""
    (low_a, high_a), (low_b, high_b) = _ends(arm), _ends(baseline)
    low, high = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
    none = high <= low
    middles = (np.arange(GRID) + 0.5) / GRID
    grid = low[:, None] + np.where(none, 0.0, high - low)[:, None] * middles
    with np.errstate(invalid="ignore"):
        means = (_cost_at(arm, grid) - _cost_at(baseline, grid)).mean(axis=1)
    return np.where(none, nan, means), low, high


def _cost_at(front: tuple[np.ndarray, np.ndarray], grid: np.ndarray) -> np.ndarray:
    """Log cost at which each draw's front reaches each quality of its row of the grid; nan above its best."""
    logs, qualities = _by_cost(*front)
    mask = _on_front(logs, qualities)
    low, high = qualities[:, :1], qualities.max(axis=1, keepdims=True)
    span = np.maximum(high - low, 1e-300)
    # All draws in one call: each lies in its own stretch of the axis, [3d, 3d + 1].
    stretch = 3.0 * np.arange(len(logs))[:, None]
    at = np.clip((grid - low) / span, 0.0, 1.0) + stretch
    places = (np.clip((qualities - low) / span, 0.0, 1.0) + stretch)[mask]
    found = np.interp(at.ravel(), places, logs[mask]).reshape(at.shape)
    return np.where(grid > high + 1e-12 * np.abs(high), nan, found)
