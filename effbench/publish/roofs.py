"""The roofline figure of a device: what each arm reached against what this machine was measured to reach.

With bytes known the axis is arithmetic intensity and the roof has its slope; without, it is the work of a call, where only the flat
part of the roof can be drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import format as fmt
from .drawing import GREY, Style, html, logarithmic
from .groups import Group, Row, machine
from .plots import Plot, by_method, named

DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")


def roofline_plots(made: Sequence[Group], environments: Mapping[str, dict], style: Style) -> list[Plot]:
    """One figure a device and thread count whose environment holds measured roofs and that has a served arm with FLOPs."""
    devices: dict[tuple, list[tuple[Group, Row]]] = {}
    for group in made:
        place = tuple(group.key[name] for name in ("environment", "device", "threads"))
        devices.setdefault(place, []).extend((group, row) for row in group.rows if _rate(row))
    found = []
    for (environment, device, threads), arms in sorted(devices.items()):
        roofs = _sound(environments.get(environment, {}).get("roofs"), device)
        if roofs and arms:
            title = f"Roofline: {machine(environment, dict(environments))}, {fmt.clean(device)}, {threads} threads"
            found.append(_plot(arms, roofs, title, style))
    return found


def _sound(roofs: Any, device: str) -> dict[str, Any] | None:
    """Roofs out of a file, where they are of this device: positive numbers only."""
    if not isinstance(roofs, dict) or not isinstance(roofs.get("matmul"), dict) or roofs.get("device", device) != device:
        return None
    matmul = {str(name): rate for name, rate in roofs["matmul"].items() if _positive(rate)}
    return {"matmul": matmul, "copy": roofs.get("copy") if _positive(roofs.get("copy")) else None} if matmul else None


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e300


def _rate(row: Row) -> float | None:
    """FLOP/s that a call reached, executed work over the median latency."""
    flops, seconds = row.value("serve.flops"), row.value("serve.latency")
    return flops / seconds if flops and seconds and flops > 0 and seconds > 0 else None


def _plot(arms: list[tuple[Group, Row]], roofs: dict[str, Any], title: str, style: Style) -> Plot:
    intensity = bool(roofs["copy"]) and all((row.value("serve.bytes") or 0) > 0 for _, row in arms)

    def across(row: Row) -> float:
        return row.value("serve.flops") / row.value("serve.bytes") if intensity else row.value("serve.flops")

    xs, ys = [across(row) for _, row in arms], [_rate(row) for _, row in arms]
    left, right = min(xs) / 2, max(xs) * 2
    dtypes = {row.dtype or "float32" for _, row in arms}
    shown = {name: rate for name, rate in sorted(roofs["matmul"].items()) if name in dtypes} or roofs["matmul"]
    traces = []
    for number, (name, peak) in enumerate(shown.items()):
        places = [left, right]
        if intensity and left < peak / roofs["copy"] < right:
            places.insert(1, peak / roofs["copy"])
        heights = [min(peak, place * roofs["copy"]) if intensity else peak for place in places]
        ys += heights
        traces.append({
            "type": "scatter", "mode": "lines", "name": html(f"roof, {name}"), "x": places, "y": heights, "hoverinfo": "skip",
            "line": {"color": GREY, "width": 1.5, "dash": DASHES[number % len(DASHES)]},
        })  # fmt: skip
    of = {id(row): group for group, row in arms}
    for method, rows in by_method([row for _, row in arms]).items():
        text = [
            f"{html(named(row))} {html(row.case)}<br>{html(of[id(row)].title)}<br>"
            f"{html(fmt.number(_rate(row), 'FLOP/s'))}, share {html(_share(row))}"
            for row in rows
        ]
        traces.append({
            "type": "scatter", "mode": "markers", "name": html(method), "x": [across(row) for row in rows],
            "y": [_rate(row) for row in rows], "text": text, "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": style.colour(method), "symbol": style.symbol(method), "size": 8},
        })  # fmt: skip
    low, high = min(ys) / 1.5, max(ys) * 1.5
    unit, name = ("FLOP/B", "arithmetic intensity") if intensity else ("FLOP", "executed FLOPs of a call")
    ends = {"range": [math.log10(left), math.log10(right)]}
    layout = {
        "xaxis": {"title": {"text": name}, **logarithmic(left, right, "FLOP" if not intensity else ""), **ends},
        "yaxis": {"title": {"text": "FLOP/s"}, **logarithmic(low, high, "FLOP/s"), "range": [math.log10(low), math.log10(high)]},
    }
    table = tuple(
        (
            fmt.clean(group.title),
            named(row),
            fmt.clean(row.case),
            fmt.number(across(row), unit),
            fmt.number(_rate(row), "FLOP/s"),
            _share(row),
        )
        for group, row in arms
    )
    note = "Lines are this machine's measured peaks; a point above its line is a narrower type, a wrong formula or a wrong clock."
    if not intensity:
        note += " Bytes moved are not known, so what memory allows is not drawn."
    head = ("task", "method", "case", name, "reached", "share of the roof")
    return Plot(title, "roofline", note, ({"data": traces, "layout": layout},), head, table)


def _share(row: Row) -> str:
    value = row.value("serve.roof")
    return fmt.MISSING if value is None else f"{value:.1%}"
