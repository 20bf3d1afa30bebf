"""How much cheaper one front is than another at the same quality, averaged over the qualities that both reach.

The average is that of Bjontegaard's delta rate (VCEG-M33, 2001) with straight lines over the logarithm of the cost instead of a
fitted cubic, which overshoots between few points. The interval comes from drawing every point anew from its samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, nan

import numpy as np

GRID = 50  # qualities at which the two fronts are compared: the middles of equal parts of the common range
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


class Comparison:
    """An arm's front against a baseline's; what is drawn at random is drawn once for all questions.

    Where both have the same seeds, both are drawn with the same ones. `better` gives the good directions of cost and quality.
    """

    def __init__(
        self, arm: Sequence[Point], baseline: Sequence[Point], better: tuple[str, str] = ("lower", "higher"), *,
        draws: int = 200, seed: int = 0,
    ):  # fmt: skip
        self._signs = tuple(1.0 if way == good else -1.0 for way, good in zip(better, ("lower", "higher")))
        self._points = _table(arm), _table(baseline)
        self._centres = tuple(self._turned(np.median(c[:, :, 0], 1)[None], q[:, :, 0].mean(1)[None]) for _, c, q in self._points)
        self._count, self._seed = draws, seed

    def _turned(self, costs: np.ndarray, qualities: np.ndarray) -> _Fronts:
        """The fronts of these draws (draws, points), turned so that low cost and high quality are good."""
        if not (costs > 0).all() or not np.isfinite(costs).all() or not np.isfinite(qualities).all():
            raise ValueError("costs must be positive and finite, qualities finite")
        return _Fronts(self._signs[0] * np.log(costs), self._signs[1] * qualities)

    @cached_property
    def _draws(self):
        rng = np.random.default_rng(self._seed)
        (seeds, *_), (others, *_) = self._points
        first = rng.integers(0, len(seeds), (self._count, len(seeds)))
        second = first if seeds == others else rng.integers(0, len(others), (self._count, len(others)))
        return tuple(self._turned(*_resampled(c, q, chosen, rng)) for (_, c, q), chosen in zip(self._points, (first, second)))

    def average(self) -> EqualQuality:
        """The cost ratio averaged over the common range of quality. A front of one point has no range: see `at`."""
        centre, low, high = _compare(*self._centres)
        if np.isnan(centre[0]):
            single = any(front.sizes[0] == 1 for front in self._centres)
            return EqualQuality(
                nan, nan, nan, (nan, nan), "a front of one point" if single else "the fronts share no range of quality"
            )
        ends = sorted((self._signs[1] * float(low[0]), self._signs[1] * float(high[0])))
        return _interval(float(centre[0]), _compare(*self._draws)[0], (ends[0], ends[1]))

    def at(self, target: float) -> EqualQuality:
        """The cost ratio at (at least) one quality; a front's cheapest point also stands for every lower quality.

        Where a front reaches it and a draw of that front falls short, what the draw's best point costs stands for it.
        """
        grid = np.array([[self._signs[1] * target]])
        centre = self._centres[0].cost_at(grid) - self._centres[1].cost_at(grid)
        between = (float(target), float(target))
        if np.isnan(centre[0, 0]):
            return EqualQuality(nan, nan, nan, between, "not reached")
        grid = np.repeat(grid, self._count, 0)
        costs = [front.cost_at(np.minimum(grid, front.high[:, None])) for front in self._draws]
        return _interval(float(centre[0, 0]), (costs[0] - costs[1])[:, 0], between)


def _interval(centre: float, found: np.ndarray, between) -> EqualQuality:
    known = found[~np.isnan(found)]
    if known.size < 0.95 * found.size:
        return EqualQuality(exp(centre), nan, nan, between, "in some draws the fronts share no quality")
    low, high = np.quantile(known, [0.025, 0.975])
    # The percentiles of few seeds may lie beside the estimate: it belongs to its own interval.
    return EqualQuality(exp(centre), exp(min(low, centre)), exp(max(high, centre)), between)


# -- fronts as arrays: (draws, points), turned so that low cost and high quality are good ----------------------------------


def _table(points: Sequence[Point]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Seeds, and costs and qualities as (points, seeds, 3); a seed that a point lacks is stood for by one that it has."""
    if not points:
        raise ValueError("a front needs at least one point")
    seeds = sorted({seed for point in points for seed in point.cost if seed in point.quality})
    tables = [], []
    for point in points:
        own = [seed for seed in seeds if seed in point.cost and seed in point.quality]
        if not own:
            raise ValueError("a point needs a seed with cost and quality")
        filled = [seed if seed in own else own[place % len(own)] for place, seed in enumerate(seeds)]
        tables[0].append([point.cost[seed] for seed in filled])
        tables[1].append([point.quality[seed] for seed in filled])
    return seeds, np.array(tables[0], dtype=float), np.array(tables[1], dtype=float)


def _resampled(cost: np.ndarray, quality: np.ndarray, chosen: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Costs and qualities (draws, points): seeds drawn with replacement, and within a seed the point from its interval."""
    value, low, high = (np.log(np.maximum(cost[:, :, i], 1e-300)) for i in range(3))
    spread = np.maximum(high - low, 0.0) / (2 * Z95)
    noise = rng.normal(size=(2, len(cost), *chosen.shape))
    logs = value[:, chosen] + noise[0] * spread[:, chosen]
    half = np.maximum(quality[:, :, 2] - quality[:, :, 1], 0.0) / (2 * Z95)
    qualities = quality[:, :, 0][:, chosen] + noise[1] * half[:, chosen]
    single = chosen.shape[1] == 1  # a median of one is dear
    return np.exp(logs[:, :, 0] if single else np.median(logs, axis=2)).T, qualities.mean(axis=2).T


class _Fronts:
    """The front of each draw, by cost: log costs and qualities (draws, points). What every question needs is computed once."""

    def __init__(self, logs: np.ndarray, qualities: np.ndarray):
        order = np.lexsort((-qualities, logs), axis=1)
        logs, qualities = np.take_along_axis(logs, order, 1), np.take_along_axis(qualities, order, 1)
        best = np.maximum.accumulate(qualities, axis=1)
        on = np.concatenate([np.ones((len(best), 1), dtype=bool), qualities[:, 1:] > best[:, :-1]], axis=1)
        self.sizes = on.sum(axis=1)
        self.low, self.high = qualities[:, 0], best[:, -1]  # quality of the cheapest and of the dearest point
        self._span = np.maximum(self.high - self.low, 1e-300)[:, None]
        # All draws are asked in one call: each lies in its own stretch of the axis, [3d, 3d + 1].
        self._stretch = 3.0 * np.arange(len(logs))[:, None]
        self._places, self._logs = self._place(qualities)[on], logs[on]

    def _place(self, qualities: np.ndarray) -> np.ndarray:
        return np.clip((qualities - self.low[:, None]) / self._span, 0.0, 1.0) + self._stretch

    def cost_at(self, grid: np.ndarray) -> np.ndarray:
        """Log cost at which each draw's front reaches each quality of its row of the grid; nan above its best."""
        found = np.interp(self._place(grid).ravel(), self._places, self._logs).reshape(grid.shape)
        high = self.high[:, None]
        return np.where(grid > high + 1e-12 * np.abs(high), nan, found)


def _compare(arm: _Fronts, baseline: _Fronts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean log ratio of each draw over its own common range, and that range; nan where there is none."""
    low, high = np.maximum(arm.low, baseline.low), np.minimum(arm.high, baseline.high)
    none = high <= low
    middles = (np.arange(GRID) + 0.5) / GRID
    grid = low[:, None] + np.where(none, 0.0, high - low)[:, None] * middles
    with np.errstate(invalid="ignore"):
        means = (arm.cost_at(grid) - baseline.cost_at(grid)).mean(axis=1)
    return np.where(none, nan, means), low, high
