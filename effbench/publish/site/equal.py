"""Cost at equal quality: for each method of a group its front against the baseline's, in seconds and in FLOPs, on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from ...stats.equal_quality import Comparison, EqualQuality, Point
from .. import format as fmt
from ..drawing import GREY, PALETTE, html, logarithmic
from ..fronts import peers
from ..groups import Group, Row, direction
from ..plots import Plot
from ..tables import Cell, Column, Table
from .boards import plain, text

COSTS = (("serve.latency", "seconds"), ("serve.flops", "FLOPs"), ("build.time", "seconds"), ("build.flops", "FLOPs"))
SHARES = ((0.0, "at its quality"), (0.01, "within 1 %"), (0.05, "within 5 %"))
CURVE_COSTS = (("time", "seconds"), ("flops", "FLOPs"))


@dataclass(frozen=True)
class Saving:
    """One arm against the baseline at one case, in one cost."""

    method: str
    case: str
    cost: str
    average: EqualQuality
    at: tuple[EqualQuality, ...]  # in the order of SHARES
    quality: str  # what was held equal


def savings(group: Group, quality: str) -> list[Saving]:
    """Empty where the group has no baseline or no quality. Training tasks are compared along their curves."""
    if not quality or not group.baseline:
        return []
    if any("curve" in record for row in group.rows for record in row.records):
        return _along_curves(group, quality)
    costs = [pair for pair in COSTS if pair[0] in group.names]
    costs = [pair for pair in costs if pair[0].startswith("serve.")] or costs
    found, name = [], quality.removeprefix("quality.")
    for rows in peers(group):
        for cost, word in costs:
            points = {}
            # Ratios of the same rounds say more than two latencies, where one row of the baseline is what they were taken to.
            paired = cost == "serve.latency" and sum(row.method == group.baseline for row in rows) == 1
            paired = paired and all(f"{cost}.ratio" in record["readings"] for row in rows for record in row.records)
            for row in rows:
                point = _point(row, f"{cost}.ratio" if paired else cost, quality)
                if point:
                    points.setdefault(row.method, []).append(point)
            found += _against(points, group, rows[0].case, word, group.better[quality], name)
    return found


def _against(points: dict[str, list[Point]], group: Group, case: str, word: str, better: str, quality: str) -> list[Saving]:
    base = points.get(group.baseline)
    if not base:
        return []
    sign = 1 if better == "higher" else -1
    mean = lambda point, end: sum(value[end] for value in point.quality.values()) / len(point.quality)  # noqa: E731
    top = max(base, key=lambda point: sign * mean(point, 0))
    # As good as the baseline is who is not told apart from it: the worse end of its interval is what must be reached.
    targets = [min(sign * mean(top, 1), sign * mean(top, 2)) * sign]
    targets += [mean(top, 0) - sign * share * abs(mean(top, 0)) for share, _ in SHARES[1:]]
    out = []
    for method, own in sorted(points.items()):
        if method == group.baseline:
            continue
        pair = ("lower", better)
        both = Comparison(own, base, pair)
        at = tuple(both.at(target) for target in targets)
        out.append(Saving(method, case, word, both.average(), at, quality))
    return out


def _point(row: Row, cost: str, quality: str) -> Point | None:
    costs, qualities = {}, {}
    for record in row.records:
        left, right = (record["readings"].get(name, {}) for name in (cost, quality))
        if left.get("value") is not None and right.get("value") is not None and left["value"] > 0:
            costs[record["seed"]] = _span(left)
            qualities[record["seed"]] = _span(right)
    return Point(costs, qualities) if costs else None


def _span(reading: dict) -> tuple[float, float, float]:
    value = reading["value"]
    return value, min(reading.get("low", value), value), max(reading.get("high", value), value)


def _along_curves(group: Group, quality: str) -> list[Saving]:
    name = quality.removeprefix("quality.")
    found = []
    for rows in peers(group):
        for axis, word in CURVE_COSTS:
            columns = [set(r["curve"]) - {"steps", "samples", "flops", "time"} for row in rows for r in row.records if "curve" in r]
            shared = sorted(set.intersection(*columns)) if columns else []
            column = name if name in shared else next(iter(shared), "")
            points = {}
            for row in rows:
                made = _curve_points(row, axis, column)
                if made:
                    points.setdefault(row.method, []).extend(made)
            better = group.better.get(f"quality.{column}") or direction(f"quality.{column}")
            found += _against(points, group, rows[0].case, word, better, f"{column} along the curve")
    return found


def _curve_points(row: Row, axis: str, column: str) -> list[Point]:
    """The places of a curve, as settings of which each costs what was spent up to there."""
    curves = {r["seed"]: r["curve"] for r in row.records if column and {axis, column} <= set(r.get("curve", ()))}
    points = []
    for place in range(max((len(curve[axis]) for curve in curves.values()), default=0)):
        costs, qualities = {}, {}
        for seed, curve in curves.items():
            pair = [curve[name][place] if place < len(curve[name]) else None for name in (axis, column)]
            if all(isinstance(value, (int, float)) for value in pair) and pair[0] > 0:
                costs[seed], qualities[seed] = ((value, value, value) for value in pair)
        if costs:
            points.append(Point(costs, qualities))
    return points


def equal_table(group: Group, found: Sequence[Saving], link) -> Table:
    base = fmt.clean(group.baseline)
    columns = [Column("method", "method"), Column("case", "case", facet=True), Column("cost", "cost", facet=True)]
    columns.append(Column("average", "average", True, "lower", unit="×"))
    columns += [
        Column(label, f"{label} of {base}" if share else f"at {base}'s quality", True, "lower", unit="×") for share, label in SHARES
    ]
    rows = []
    for saving in found:
        cells = [text(saving.method, href=link(saving.method)), text(saving.case), text(saving.cost)]
        rows.append(cells + [ratio_cell(one) for one in (saving.average, *saving.at)])
    if not any(saving.case for saving in found):
        columns.pop(1)
        rows = [[cells[0], *cells[2:]] for cells in rows]
    name = fmt.clean(", ".join(sorted({saving.quality for saving in found})))
    caption = f"Cost over that of {base} at the same {name}: below 1 is cheaper."
    return plain(f"Cost at equal quality, {group.title}", caption, columns, rows)


def ratio_cell(one: EqualQuality) -> Cell:
    if not one.known:
        return Cell(fmt.MISSING, None, why=one.reason)
    why = (
        f"over qualities from {one.between[0]:.4g} to {one.between[1]:.4g}"
        if one.between[0] != one.between[1]
        else f"at {one.between[0]:.4g}"
    )
    reading = {"value": one.ratio, "unit": "×", **({"low": one.low, "high": one.high} if one.sure else {})}
    detail = fmt.bounds(reading)
    return Cell(fmt.ratio(one.ratio), one.ratio, detail, why=why, low=reading.get("low"), high=reading.get("high"))


def forest(group: Group, found: Sequence[Saving]) -> Plot | None:
    """Ratios with their intervals, one line a method and case; seconds and FLOPs beside each other."""
    shown = []
    for saving in found:
        one, how = next(
            ((one, how) for one, how in zip((saving.average, *saving.at), ("average", *(s[1] for s in SHARES))) if one.known),
            (None, ""),
        )
        if one:
            shown.append((saving, one, how))
    lines = list(dict.fromkeys((s.method, s.case) for s, _, _ in shown))
    if not shown or len(lines) > 60:
        return None
    place = {line: len(lines) - 1 - index for index, line in enumerate(lines)}
    low = min(min(o.ratio, o.low if o.sure else o.ratio) for _, o, _ in shown)
    high = max(1.0, *(max(o.ratio, o.high if o.sure else o.ratio) for _, o, _ in shown))
    low = min(low, 1.0)
    traces = [{
        "type": "scatter", "mode": "lines", "x": [1, 1], "y": [-0.7, len(lines) - 0.3], "hoverinfo": "skip",
        "name": html(f"as {group.baseline}"), "line": {"color": GREY, "dash": "dot", "width": 1.5},
    }]  # fmt: skip
    for word, symbol, shift, colour in (("seconds", "circle", 0.12, PALETTE[0]), ("FLOPs", "diamond-open", -0.12, PALETTE[1])):
        own = [item for item in shown if item[0].cost == word]
        if own:
            traces.append({
                "type": "scatter", "mode": "markers", "name": word, "x": [o.ratio for _, o, _ in own],
                "y": [place[s.method, s.case] + shift for s, _, _ in own],
                "error_x": {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": colour,
                            "array": [o.high - o.ratio if o.sure else 0 for _, o, _ in own],
                            "arrayminus": [o.ratio - o.low if o.sure else 0 for _, o, _ in own]},
                "text": [f"{html(s.method)} {html(s.case)}<br>{word} {fmt.ratio(o.ratio)}, {html(how)}" for s, o, how in own],
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"symbol": symbol, "size": 9, "color": colour},
            })  # fmt: skip
    names = [html(" ".join(filter(None, line)), 34) for line in lines]
    margin = 1.15
    layout = {
        "xaxis": {"title": {"text": html(f"cost / {group.baseline}")}, **logarithmic(low / margin, high * margin),
                  "range": [log10(low / margin), log10(high * margin)]},
        "yaxis": {"tickvals": [place[line] for line in lines], "ticktext": names, "range": [-0.7, len(lines) - 0.3], "title": {"text": ""}},
        "height": 170 + 30 * len(lines),
    }  # fmt: skip
    rows = tuple((fmt.clean(s.method), fmt.clean(s.case), s.cost, how, fmt.ratio(o.ratio)) for s, o, how in shown)
    note = "Left of the line is cheaper. Average over the shared range of quality, or where there is none the ratio at the closest quality."
    return Plot(
        "Cost at equal quality",
        "forest",
        note,
        ({"data": traces, "layout": layout},),
        ("method", "case", "cost", "how", "ratio"),
        rows,
    )
