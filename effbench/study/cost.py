"""A cost model of one method: seconds of a call as a constant and a price for each thing that the method counts.

A timed number scatters by several percent; two settings that differ by less cannot be told apart by it. What a call does (points
visited, rows rescored: `serve.tally.*`) is counted exactly. Prices fitted over all measured settings average the scatter away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .goals import Values, Wish
from .space import Point

MODELLED = {"serve.cpu": 1, "serve.latency": 1, "serve.throughput": -1}  # the power of seconds
WORST = 0.25  # relative error (root of the mean square) from which on a fit is not used
PREFIX = "serve.tally."


@dataclass(frozen=True)
class CostModel:
    """Seconds (of a call, or of an item for throughput) = constant + sum of price * count; `error` is relative."""

    metric: str
    constant: float
    prices: Mapping[str, float]
    error: float
    n: int

    def __call__(self, values: Values) -> float:
        seconds = self.constant + sum(price * values[name] for name, price in self.prices.items())
        return seconds ** MODELLED[self.metric]

    def __str__(self) -> str:
        terms = [f"{self.constant:.3g} s", *(f"{p:.3g} s * {name.removeprefix(PREFIX)}" for name, p in self.prices.items())]
        return f"{' + '.join(terms)} (error {self.error:.1%} over {self.n} settings)"


def fit(metric: str, measured: Sequence[Values]) -> CostModel | None:
    """Prices that are not negative, by least squares of relative errors; None where too little is there, or it fits badly."""
    if metric not in MODELLED:
        return None
    rows = [values for values in measured if (values.get(metric) or 0) > 0]
    names = [name for name in (rows[0] if rows else {}) if name.startswith(PREFIX)]
    names = [name for name in names if all(values.get(name) is not None for values in rows)]
    names = [name for name in names if len({values[name] for values in rows}) > 1]
    if not names or len(rows) < len(names) + 3:
        return None
    seconds = np.array([values[metric] for values in rows], float) ** MODELLED[metric]
    counts = np.array([[1.0, *(values[name] for name in names)] for values in rows]) / seconds[:, None]
    scale = np.abs(counts).max(0)
    used = list(range(len(scale)))
    while used:
        found = np.linalg.lstsq(counts[:, used] / scale[used], np.ones(len(rows)), rcond=None)[0]
        if found.min() >= 0:
            break
        used.pop(int(np.argmin(found)))
    if not used:
        return None
    prices = np.zeros(len(scale))
    prices[used] = found / scale[used]
    error = float(np.sqrt(np.mean((counts @ prices - 1) ** 2)))
    if error > WORST or not prices[1:].any():
        return None
    return CostModel(metric, float(prices[0]), dict(zip(names, map(float, prices[1:]))), error, len(rows))


def smoothed(wish: Wish, measured: Sequence[tuple[Point, Values]]) -> tuple[list[tuple[Point, Values]], CostModel | None]:
    """The measured settings with the wished metric as the model sees it; unchanged where there is no model."""
    model = fit(wish.metric, [values for _, values in measured if values.get(wish.metric) is not None])
    if model is None:
        return list(measured), None
    return [
        (point, {**values, wish.metric: model(values)} if values.get(wish.metric) is not None else values)
        for point, values in measured
    ], model
