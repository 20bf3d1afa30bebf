"""Figures as plain data for plotly.js: traces and layout, without plotly for Python, and the table each one is drawn from.

Colours of text, grid and background are the page's matter (`assets/plots.js` fills them in for dark and light). Colour and
symbol of a method are given by its place among all methods of the page, so that it looks the same in every figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import format as fmt
from .drawing import GREY, Style, axis, html, logarithmic, title_of
from .fronts import SURE, front, pairs, peers
from .groups import Group, Row, natural
from .tables import label

AXES = {"steps": "steps", "flops": "FLOPs", "time": "time (s)", "samples": "samples"}
POINT_LIMIT = 5000
LINE_LIMIT = 8


@dataclass(frozen=True)
class Plot:
    """One or more figures side by side, and the table of the numbers in them. `figures` are dicts for JSON."""

    title: str
    kind: str  # front | scaling | curve | ratio | roofline
    note: str
    figures: tuple[dict[str, Any], ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def plots(group: Group, style: Style, *, fronts=None) -> list[Plot]:
    made = [front_plot(group, rows, pair, style) for pair in pairs(group, fronts) for rows in peers(group)]
    made += [scaling_plot(group, style), ratio_plot(group, style), *curve_plots(group, style)]
    return [plot for plot in made if plot]


def named(row: Row) -> str:
    return " ".join(filter(None, [row.method, label(row, "settings")]))


def shown(row: Row, *names: str) -> list[str]:
    return [fmt.interval(row.readings.get(name)) for name in names]


def bars(rows: Sequence[Row], name: str) -> dict[str, Any]:
    ends = [(row.readings[name].get("low"), row.readings[name].get("high"), row.value(name)) for row in rows]
    if all(low is None for low, _, _ in ends):
        return {"visible": False}
    up = [0 if high is None else max(high - value, 0) for _, high, value in ends]
    down = [0 if low is None else max(value - low, 0) for low, _, value in ends]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 0}


def unit_of(rows: Sequence[Row], name: str) -> str:
    return next((row.readings[name]["unit"] for row in rows if name in row.readings), "")


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    divided: dict[str, list[Row]] = {}
    for row in rows:
        divided.setdefault(row.method, []).append(row)
    return divided


def front_plot(group: Group, rows: Sequence[Row], pair: tuple[str, str], style: Style) -> Plot | None:
    """Two readings against each other, one point an arm, and the line along the Pareto front."""
    x, y = pair
    rows = [row for row in rows if row.value(x) is not None and row.value(y) is not None]
    if not rows:
        return None
    marks = front(rows, pair, group.better)
    traces = []
    top = sorted((row for row in rows if marks.get(id(row)) == SURE), key=lambda row: (row.value(x), row.value(y)))
    if len(top) > 1:
        # A staircase: between two points of the front only the worse of both is known to be reached.
        line = {"color": GREY, "width": 1.5, "dash": "dot", "shape": "vh" if group.better[x] == "higher" else "hv"}
        points = {"x": [row.value(x) for row in top], "y": [row.value(y) for row in top]}
        traces.append({"type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip", "line": line, **points})
    for method, own in by_method(rows).items():
        own = sorted(own, key=lambda row: (row.value(x), row.value(y)))
        text = [
            "<br>".join([html(named(row)), *(f"{html(title_of(n))}: {html(s)}" for n, s in zip(pair, shown(row, *pair)))])
            for row in own
        ]
        traces.append({
            "type": "scatter", "mode": "lines+markers" if len(own) > 1 else "markers", "name": html(method),
            "x": [row.value(x) for row in own], "y": [row.value(y) for row in own], "error_x": bars(own, x), "error_y": bars(own, y),
            "text": text, "hovertemplate": "%{text}<extra></extra>", "line": {"color": style.colour(method), "width": 1},
            "marker": {"color": style.colour(method), "symbol": style.symbol(method), "size": 9},
        })  # fmt: skip
    case = rows[0].case
    layout = {"xaxis": axis(x, [r.value(x) for r in rows], group.better[x], unit_of(rows, x))}
    layout["yaxis"] = axis(y, [r.value(y) for r in rows], group.better[y], unit_of(rows, y))
    table = [
        (named(row), *shown(row, x, y), {SURE: "yes", None: "no"}.get(marks.get(id(row)), "within the intervals")) for row in rows
    ]
    several = len({row.case for row in group.rows}) > 1 or case
    title = f"{title_of(x)} and {title_of(y)}" + (f", {fmt.clean(case)}" if several else "")
    budget = fmt.settings(rows[0].budget)
    note = "Arrows point to the better end of an axis; bars are intervals." + (f" Budget: {budget}." if budget else "")
    return Plot(
        title,
        "front",
        note,
        ({"data": traces, "layout": layout},),
        ("method", title_of(x), title_of(y), "on the front"),
        tuple(table),
    )


def case_number(case: str) -> tuple[str, float] | None:
    """("batch", 256.0) of "batch-256"; None where the name does not end in a number."""
    match = re.fullmatch(r"(.*?)[-_= ]?([0-9]{1,15})", case)
    return (match[1], float(match[2])) if match else None


def scaling_plot(group: Group, style: Style) -> Plot | None:
    """Latency (else throughput), and FLOPs beside it, over the cases of a group; one line an arm."""
    name = next((n for n in ("serve.latency", "serve.throughput") if n in group.names), None)
    rows = [row for row in group.rows if row.case and name and row.value(name) is not None]
    cases = sorted({row.case for row in rows}, key=natural)
    if len(cases) < 2:
        return None
    numbers = {case: case_number(case) for case in cases}
    numeric = (
        all(numbers.values()) and len({found[0] for found in numbers.values()}) == 1 and all(f[1] > 0 for f in numbers.values())
    )
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(named(row), []).append(row)
    drawn = lines if len(lines) <= LINE_LIMIT else most_exact(group, lines)
    word = (next(iter(numbers.values()))[0].rstrip("-_= ") or "case") if numeric else "case"
    places = {case: numbers[case][1] if numeric else html(case) for case in cases}
    values = list(places.values())
    x = {
        "title": {"text": html(word)},
        **({"type": "log", "tickvals": values, "ticktext": [f"{v:g}" for v in values]} if numeric else {"type": "category"}),
    }
    costs = [name, *(["serve.flops"] if any((row.value("serve.flops") or 0) > 0 for row in rows) else [])]
    figures = tuple(scaling_figure(group, drawn, cost, places, x, style) for cost in costs)
    table = [(named(row), fmt.clean(row.case), *shown(row, *costs)) for row in rows]
    note = (
        "Each line is one build."
        if len(drawn) == len(lines)
        else "Each method at its setting of highest quality; the table has all."
    )
    titles = [title_of(cost) for cost in costs]
    return Plot(f"{' and '.join(titles)} over {word}", "scaling", note, figures, ("method", "case", *titles), tuple(table))


def scaling_figure(
    group: Group, lines: dict[str, list[Row]], name: str, places: dict[str, Any], x: dict[str, Any], style: Style
) -> dict[str, Any]:
    """One cost over the cases at `places`; a method without it, or with none of it, has no line."""
    traces, legend, seen = [], set(), []
    for arm, rows in lines.items():
        own = [row for row in rows if (row.value(name) or 0) > 0]
        if not own:
            continue
        method = own[0].method
        traces.append({
            "type": "scatter", "mode": "lines+markers" if x["type"] == "log" else "markers", "name": html(method),
            "legendgroup": html(method), "showlegend": method not in legend, "x": [places[row.case] for row in own],
            "y": [row.value(name) for row in own], "error_y": bars(own, name), "hovertemplate": "%{text}<extra></extra>",
            "text": [f"{html(arm)}<br>{html(row.case)}: {html(fmt.interval(row.readings[name]))}" for row in own],
            "line": {"color": style.colour(method), "dash": style.dash(method), "width": 1.5},
            "marker": {"color": style.colour(method), "symbol": style.symbol(method), "size": 8},
        })  # fmt: skip
        legend.add(method)
        seen += own
    y = axis(name, [row.value(name) for row in seen], group.better[name], unit_of(seen, name))
    return {"data": traces, "layout": {"xaxis": x, "yaxis": y}}


def most_exact(group: Group, lines: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """One arm of each method: that of the best first quality; many lines that overlap tell nothing."""
    quality = next((name for name in group.names if name.startswith("quality.")), "")
    sign = -1 if group.better.get(quality) == "lower" else 1
    chosen: dict[str, tuple[float, str]] = {}
    for arm, rows in lines.items():
        found = [sign * row.value(quality) for row in rows if row.value(quality) is not None]
        value = sum(found) / len(found) if found else -math.inf
        if rows[0].method not in chosen or value > chosen[rows[0].method][0]:
            chosen[rows[0].method] = (value, arm)
    return {arm: lines[arm] for _, arm in chosen.values()}


def finite(column: Sequence[Any]) -> list[float | None]:
    """A curve's column: anything that is no number is a gap."""
    return [v if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300 else None for v in column]


def curve_plots(group: Group, style: Style) -> list[Plot]:
    """Each quality of the curve over steps, FLOPs and time: three figures, one line a seed."""
    curves = [(row, record["seed"], record["curve"]) for row in group.rows for record in row.records if record.get("curve")]
    made = []
    for y in sorted({name for _, _, curve in curves for name in curve} - set(AXES)):
        having = [(row, seed, curve) for row, seed, curve in curves if any(v is not None for v in finite(curve.get(y, ())))]
        axes = [x for x in AXES if any(v for _, _, curve in having for v in finite(curve.get(x, ())))]
        axes = [x for x in axes if x != "samples" or "steps" not in axes]
        figures = tuple(curve_figure(having, x, y, style) for x in axes)
        if not figures:
            continue
        table = []
        for row, seed, curve in having:
            columns = [finite(curve.get(name, ())) for name in (*axes, y)]
            for values in zip(*columns):
                units = [{"flops": "FLOP", "time": "s"}.get(name, "") for name in (*axes, y)]
                table.append((named(row), str(seed), *(fmt.number(v, unit) for v, unit in zip(values, units))))
        over = [AXES[x].removesuffix(" (s)") for x in axes]
        title = f"{fmt.clean(y, 60)} over " + (", ".join(over[:-1]) + " and " + over[-1] if over[1:] else over[0])
        note = "On validation data, evaluated outside the clock; one line a seed."
        head = ("method", "seed", *over, fmt.clean(y, 60))
        made.append(Plot(title, "curve", note, figures, head, tuple(table[:POINT_LIMIT])))
    return made


def curve_figure(having, x: str, y: str, style: Style) -> dict[str, Any]:
    traces, named_already = [], set()
    for row, seed, curve in having:
        columns = finite(curve.get(x, ())), finite(curve[y])
        method = row.method
        traces.append({
            "type": "scatter", "mode": "lines", "name": html(method), "legendgroup": html(method),
            "showlegend": method not in named_already, "x": columns[0], "y": columns[1],
            "line": {"color": style.colour(method), "dash": style.dash(method), "width": 1.5},
            "hovertemplate": f"{html(named(row))}, seed {seed}<br>%{{x:.4s}}: %{{y:.4g}}<extra></extra>",
        })  # fmt: skip
        named_already.add(method)
    return {
        "data": traces,
        "layout": {"xaxis": {"title": {"text": AXES[x]}, "exponentformat": "SI"}, "yaxis": {"title": {"text": html(y)}}},
    }


def ratio_plot(group: Group, style: Style) -> Plot | None:
    """FLOPs saved against seconds saved, both as ratios to the baseline at the same case: on the diagonal they agree."""
    phases = (("serve.flops", "serve.latency"), ("build.flops", "build.time"))
    flops, time = next((pair for pair in phases if set(pair) <= set(group.names)), phases[0])
    points = []
    for rows in peers(group):
        bases = [r for r in rows if r.baseline and (r.value(flops) or 0) > 0 and (r.value(time) or 0) > 0]
        if len(bases) != 1:  # several settings of the baseline: none is *the* reference
            continue
        for row in rows:
            if not row.baseline and (row.value(flops) or 0) > 0 and (row.value(time) or 0) > 0:
                paired = row.ratios.get(time)
                seconds = paired["value"] if paired else row.value(time) / bases[0].value(time)
                points.append((row, row.value(flops) / bases[0].value(flops), seconds, "per round" if paired else "of medians"))
    points = [point for point in points if point[1] > 0 and point[2] > 0]
    if not points:
        return None
    low = min(min(p[1], p[2]) for p in points) / 1.5
    high = max(1.0, *(max(p[1], p[2]) for p in points)) * 1.5
    diagonal = {"x": [low, high], "y": [low, high], "mode": "lines", "line": {"color": GREY, "dash": "dot", "width": 1.5}}
    traces = [{"type": "scatter", "name": "seconds = FLOPs", "hoverinfo": "skip", **diagonal}]
    for method in dict.fromkeys(point[0].method for point in points):
        own = [point for point in points if point[0].method == method]
        traces.append({
            "type": "scatter", "mode": "markers", "name": html(method), "x": [p[1] for p in own], "y": [p[2] for p in own],
            "text": [f"{html(named(p[0]))} {html(p[0].case)}<br>FLOPs {fmt.ratio(p[1])}, seconds {fmt.ratio(p[2])}" for p in own],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": style.colour(method), "symbol": style.symbol(method), "size": 9},
        })  # fmt: skip
    base = fmt.clean(group.baseline)
    ends = {**logarithmic(low, high), "range": [math.log10(low), math.log10(high)]}
    layout = {
        "xaxis": {"title": {"text": f"{flops} / {html(base)}"}, **ends},
        "yaxis": {"title": {"text": f"{time} / {html(base)}"}, **ends},
    }
    table = tuple((named(row), fmt.clean(row.case), fmt.ratio(f), fmt.ratio(s), how) for row, f, s, how in points)
    note = f"Ratios to {base} at the same case. Above the line, time shrank less than FLOPs did."
    head = ("method", "case", "FLOPs", "seconds", "ratio")
    return Plot("Seconds saved against FLOPs saved", "ratio", note, ({"data": traces, "layout": layout},), head, table)
