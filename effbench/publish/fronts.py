"""Which rows of a group are best, and which lie on the Pareto front of two readings, intervals included.

Marks are a reading aid, not a verdict: "best" also marks the rows whose interval overlaps that of the best one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from .groups import Group, Row

SURE, MAYBE = "front", "maybe"


def peers(group: Group) -> list[list[Row]]:
    """Rows that were asked the same: same case, same budget."""
    alike: dict[str, list[Row]] = {}
    for row in group.rows:
        alike.setdefault(json.dumps([row.case, row.budget], sort_keys=True), []).append(row)
    return list(alike.values())


def ends(row: Row, name: str) -> tuple[float, float] | None:
    reading = row.readings.get(name, {})
    if reading.get("value") is None:
        return None
    return reading.get("low", reading["value"]), reading.get("high", reading["value"])


def best(rows: Sequence[Row], name: str, better: str) -> set[int]:
    """ids of the rows not told apart from the best value; empty where nothing competes or all are alike."""
    present = [row for row in rows if row.value(name) is not None]
    if len(present) < 2:
        return set()
    sign = 1 if better == "higher" else -1
    top = max(present, key=lambda row: sign * row.value(name))
    low, high = ends(top, name)
    found = {id(r) for r in present if r is top or (ends(r, name)[0] <= high and ends(r, name)[1] >= low)}
    return found if len(found) < len(present) else set()


def front(rows: Sequence[Row], pair: tuple[str, str], better: dict[str, str]) -> dict[int, str]:
    """id of row -> SURE (no other row has better values) or MAYBE (dominated, but within the intervals)."""
    signs = [1 if better.get(name) == "higher" else -1 for name in pair]
    chosen, values, worst, hope = [], [], [], []
    for row in rows:
        spans = [ends(row, name) for name in pair]
        if all(spans):
            chosen.append(row)
            values.append([sign * row.value(name) for sign, name in zip(signs, pair)])
            # Pessimistic and optimistic corners, both as "more is better".
            worst.append([min(sign * end for end in span) for sign, span in zip(signs, spans)])
            hope.append([max(sign * end for end in span) for sign, span in zip(signs, spans)])
    if not chosen:
        return {}
    sure, maybe = ~dominated(values, values), ~dominated(hope, worst)
    return {id(row): SURE if s else MAYBE for row, s, m in zip(chosen, sure, maybe) if s or m}


def dominated(points: Sequence[Sequence[float]], by: Sequence[Sequence[float]]) -> np.ndarray:
    """Whether each point (more is better in both) is beaten by one of `by`: as good in both, better in one."""
    points, by = np.asarray(points, dtype=float), np.asarray(by, dtype=float)
    by = by[np.argsort(-by[:, 0], kind="stable")]
    best = np.concatenate([[-np.inf], np.maximum.accumulate(by[:, 1])])  # of the k points furthest to the right
    further = best[np.searchsorted(-by[:, 0], -points[:, 0], "left")]
    as_far = best[np.searchsorted(-by[:, 0], -points[:, 0], "right")]
    return (further >= points[:, 1]) | (as_far > points[:, 1])


def pairs(group: Group, fronts: Any = None) -> list[tuple[str, str]]:
    """The fronts to draw: those asked for that this group has readings of, else the first quality against its cost."""
    wanted = [tuple(pair) for pair in fronts or () if is_pair(pair)]
    names = {name for name in group.names if any(row.value(name) is not None for row in group.rows)}
    found = [pair for pair in wanted if set(pair) <= names]
    if found:
        return list(dict.fromkeys(found))
    quality = next((name for name in group.names if name.startswith("quality.") and name in names), None)
    costs = ("serve.throughput", "serve.latency", "build.time", "build.flops")
    cost = next((name for name in costs if name in names), None)
    return [(quality, cost)] if quality and cost else []


def is_pair(pair: Any) -> bool:
    return isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(name, str) for name in pair)
