"""From what a task scored to readings with intervals, and to mean curves. What is not finite is wrong, never averaged away."""

from __future__ import annotations

from ..api.errors import Wrong
from ..api.record import reading
from ..api.values import Curve, Metric

CURVE_ROWS = 20  # of a curve in a record
PARTS = ("tuning", "held-out")


def half(scored: dict, part: str) -> dict:
    """What was scored, on one random half of the samples: `part` "tuning" or "held-out". One number has no halves and stays.

    The halves depend on the number of samples alone: they are the same queries or images at every setting.
    """
    import numpy as np

    if part not in PARTS:
        raise ValueError(f"a part is one of {', '.join(PARTS)}, not '{part}'")

    def chosen(value):
        if isinstance(value, Curve) or np.size(value) < 2:
            return value
        order = np.random.default_rng(np.size(value)).permutation(np.size(value))
        middle = len(order) // 2
        return np.asarray(value, dtype=np.float64).ravel()[np.sort(order[:middle] if part == "tuning" else order[middle:])]

    return {name: chosen(value) for name, value in scored.items()}


def quality(metrics: dict[str, Metric], scores: list[dict]) -> tuple[dict[str, dict], dict[str, list]]:
    """Readings `quality.<name>` with intervals over samples or replicates, and mean curves."""
    import numpy as np

    from ..stats.interval import mean_interval

    readings, curves = {}, {}
    for name in {name: None for score in scores for name in score}:
        values = [score[name] for score in scores if name in score]
        if isinstance(values[0], Curve):
            if not all(np.isfinite(np.asarray(axis, dtype=np.float64)).all() for c in values for axis in (c.x, c.y)):
                raise Wrong(f"curve '{name}' has numbers that are not finite")
            curves.update(mean_curve(name, values))
            continue
        if name not in metrics:
            raise Wrong(f"score returned '{name}', which is not among the task's metrics ({', '.join(metrics)})")
        metric = metrics[name]
        samples = np.concatenate([np.atleast_1d(np.asarray(value, dtype=np.float64)).ravel() for value in values])
        if samples.size == 0:
            readings[f"quality.{name}"] = reading(None, metric.unit, reason=f"no {metric.sample} gave a value")
            continue
        if not np.isfinite(samples).all():
            raise Wrong(f"quality '{name}' is not finite in {int((~np.isfinite(samples)).sum())} of {samples.size} samples")
        low, high = mean_interval(samples) if samples.size > 1 else (None, None)
        readings[f"quality.{name}"] = reading(
            float(samples.mean()), metric.unit, low=low, high=high, n=samples.size, how=f"mean over {metric.sample}"
        )
    return readings, curves


def mean_curve(name: str, curves: list[Curve]) -> dict[str, list]:
    """The mean over replicates on the first curve's grid, with the 10 % and 90 % quantiles."""
    import numpy as np

    x = np.asarray(curves[0].x, dtype=float)
    rows = np.array([np.interp(x, np.asarray(c.x, dtype=float), np.asarray(c.y, dtype=float)) for c in curves])
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_ROWS)).round().astype(int))
    columns = {f"{name}.x": x[keep], name: rows.mean(0)[keep]}
    if len(curves) > 1:
        columns |= {f"{name}.p10": np.quantile(rows, 0.1, axis=0)[keep], f"{name}.p90": np.quantile(rows, 0.9, axis=0)[keep]}
    return {key: [float(f"{v:.4g}") for v in column] for key, column in columns.items()}
