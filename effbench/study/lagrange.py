"""Tuning by a fitted model and a Lagrange multiplier: measure a few settings, fit effects that add up, solve, measure, correct.

The idea is that of constrained auto-configuration (arXiv 2301.01702), carried from an index's own ranks to any method: on the
right scale (logarithm of a recall, seconds of a call) the effects of knobs add up, so that for a multiplier each knob is minimised
alone. The multiplier is bisected until the constraint holds. What the model gets wrong is corrected by what was measured near by.
"Lagrange multiplier tuning" of search indexes is patented (US 12,235,845): see docs/tuning.md.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import combinations

import numpy as np

from .cost import smoothed
from .goals import Values, Wish, scaled, unscaled
from .space import Point, Space

STIFF = 0.02  # of second differences: effects are smooth along a numeric axis
SHRINK = 1e-3  # of effects: a value that was never measured has none
NEAR = 0.12  # how far a measured error reaches, in units of an axis
SLACK = 0.02  # predicted violation, as a share of the bound's scale, at which a better setting is still worth a trial
Asked = tuple[Point, dict[str, float] | None]


class Additive:
    """constant + sum of one effect for each axis's value, fitted to measured points by least squares."""

    def __init__(self, space: Space, points: Sequence[Point], values: Sequence[float]):
        self.positions = [np.array(axis.positions()) for axis in space.axes]
        self.starts = np.cumsum([0, *space.shape])
        self.points = np.array(points, int).reshape(len(points), len(space.axes))
        y = np.asarray(values, float)
        self.middle, spread = float(np.median(y)), float(y.max() - y.min()) or 1.0
        rows = [self._row(point) for point in self.points]
        penalties = []
        for axis, start, x in zip(space.axes, self.starts, self.positions):
            penalties += [SHRINK * np.eye(1, self.starts[-1] + 1, start + i)[0] for i in range(len(x))]
            for i in range(1, len(x) - 1) if axis.numeric else ():
                row = np.zeros(self.starts[-1] + 1)
                left, right = x[i] - x[i - 1], x[i + 1] - x[i]
                row[[start + i - 1, start + i, start + i + 1]] = np.array([right, -(left + right), left]) / (left + right)
                penalties.append(STIFF * row / max(left * right, 1e-6) ** 0.5)
        system = np.array([*rows, *penalties])
        target = np.concatenate([(y - self.middle) / spread, np.zeros(len(penalties))])
        effects = np.linalg.lstsq(system, target, rcond=None)[0] * spread
        self.constant = self.middle + float(effects[-1])
        self.tables = [effects[a:b] for a, b in zip(self.starts, self.starts[1:])]
        self.errors = np.zeros(len(y))
        self.errors = y - self.predict(self.points)

    def _row(self, point) -> np.ndarray:
        row = np.zeros(self.starts[-1] + 1)
        row[self.starts[:-1] + point] = 1
        row[-1] = 1
        return row

    def predict(self, points: np.ndarray) -> np.ndarray:
        """Model and near-by errors at points [n, axes]; float [n]."""
        value = self.constant + sum(table[points[:, i]] for i, table in enumerate(self.tables))
        apart = sum((x[points[:, i]][:, None] - x[self.points[:, i]]) ** 2 for i, x in enumerate(self.positions))
        weight = np.exp(-apart / (2 * NEAR**2))
        return value + (weight @ self.errors) / (weight.sum(1) + 0.05)


def dual(objective: Additive, constraints: Sequence[tuple[Additive, float]]) -> Point:
    """Each axis minimised alone at multipliers that are bisected, one constraint after the other, until all are kept."""
    multipliers = np.zeros(len(constraints))

    def at(weights) -> Point:
        return tuple(
            int(np.argmin(table + sum(w * model.tables[i] for w, (model, _) in zip(weights, constraints))))
            for i, table in enumerate(objective.tables)
        )

    def over(j: int, weights) -> bool:
        model, bound = constraints[j]
        return model.constant + sum(table[k] for table, k in zip(model.tables, at(weights))) > bound

    for _ in range(4 if len(constraints) > 1 else 1):
        for j in range(len(constraints)):
            low, high = -40.0, 40.0  # of the multiplier's logarithm
            trial = multipliers.copy()
            trial[j] = 0.0
            if not over(j, trial):
                multipliers = trial
                continue
            for _ in range(60):
                middle = (low + high) / 2
                trial[j] = np.exp(middle)
                low, high = (middle, high) if over(j, trial) else (low, middle)
            multipliers[j] = np.exp(high)
    return at(multipliers)


def around(space: Space, point: Point) -> np.ndarray:
    """Points that differ from one in at most two axes; int [n, axes]. With two axes these are all."""
    found = {point}
    pairs = list(combinations(range(len(space.axes)), 2)) or [(0, 0)]
    for a, b in pairs:
        for i in range(space.shape[a]):
            for j in range(space.shape[b]):
                other = list(point)
                other[a], other[b] = i, j if b != a else i
                found.add(tuple(other))
    return np.array(sorted(found), int)


def cross(space: Space, trials: int) -> list[Point]:
    """The first points: the middle, and along each axis through it, both ends first; about half of the trials."""
    middle = tuple((count - 1) // 2 for count in space.shape)
    each = max(2, (max(trials, 2) // 2 - 1) // len(space.axes))
    found = [middle]
    for a, count in enumerate(space.shape):
        for i in np.unique(np.linspace(0, count - 1, min(count, each + 1)).round().astype(int)):
            found.append((*middle[:a], int(i), *middle[a + 1 :]))
    return list(dict.fromkeys(found))[: max(1, trials)]


def lagrange(
    space: Space, wish: Wish, trials: int, seed: int, known: Sequence[tuple[Point, Values]] = ()
) -> Generator[Asked, Values, None]:
    """Yields (point, predicted values or None), is sent what was measured. `known` was measured before and costs nothing.

    Ends early where the model sees nothing left that could be better.
    """
    del seed  # nothing here is random
    seen: dict[Point, Values] = dict(known)
    asked: dict[Point, Values] = {}
    for point in cross(space, trials):
        asked[point] = seen[point] = yield point, None
    while len(asked) < min(trials, space.size):
        found = propose(space, wish, seen, asked)
        if found is None:
            return
        asked[found[0]] = seen[found[0]] = yield found


def propose(space: Space, wish: Wish, seen: dict[Point, Values], asked: dict[Point, Values]) -> Asked | None:
    """The next point by the model fitted to `seen`, not among `asked`; None where nothing could be better."""
    even = dict(smoothed(wish, list(seen.items()))[0])
    whole = [(p, v) for p, v in even.items() if all(v.get(metric) is not None for metric in wish.metrics)]
    failed = [p for p, v in seen.items() if v.get(wish.metric) is None]
    if not whole:
        left = next((point for point in space.points() if point not in seen), None)
        return None if left is None else (left, None)
    points = [point for point, _ in whole]

    def fit(metric, better):
        return Additive(space, points, [scaled(values[metric], metric, better) for _, values in whole])

    objective = fit(wish.metric, wish.better)
    constraints = [(fit(c.metric, c.better), scaled(c.value, c.metric, c.better)) for c in wish.constraints]
    start = dual(objective, constraints)
    mine = [(point, even[point]) for point in asked]
    incumbent = wish.best(mine)
    best = np.inf
    candidates = around(space, start)
    if incumbent is not None:
        point, values = mine[incumbent]
        best = scaled(values[wish.metric], wish.metric, wish.better)
        candidates = np.unique(np.concatenate([candidates, around(space, point)]), axis=0)
    taken = {*asked, *failed}
    candidates = np.array([point for point in map(tuple, candidates.tolist()) if point not in taken], int)
    if not len(candidates):
        return None
    gain = objective.predict(candidates)
    over = np.zeros(len(candidates))
    for model, bound in constraints:
        reach = float(np.ptp(model.predict(model.points))) or 1.0
        over = np.maximum(over, (model.predict(candidates) - bound) / reach)
    promising = gain < best
    feasible = promising & (over <= 0)
    if feasible.any():
        chosen = int(np.flatnonzero(feasible)[np.argmin(gain[feasible])])
    elif incumbent is None:
        chosen = int(np.argmin(over))
    elif (promising & (over <= SLACK)).any():
        close = np.flatnonzero(promising & (over <= SLACK))
        chosen = int(close[np.argmin(over[close])])
    else:
        return None
    at = candidates[chosen : chosen + 1]
    predicted = {wish.metric: unscaled(float(gain[chosen]), wish.metric, wish.better)}
    for constraint, (model, _) in zip(wish.constraints, constraints):
        predicted.setdefault(constraint.metric, unscaled(float(model.predict(at)[0]), constraint.metric, constraint.better))
    return tuple(int(i) for i in at[0]), predicted
