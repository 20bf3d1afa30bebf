"""The roofline of a machine and the methods under it: FLOP/s reached over FLOPs a byte."""

from __future__ import annotations

from math import isfinite, log10
from typing import Any

from .. import format as fmt
from ..drawing import GREY, Style, html, logarithmic
from ..groups import Group
from ..plots import Plot, named


def roof(environment: dict, dtype: str = "float32") -> tuple[float, float] | None:
    """(FLOP/s, byte/s) that calibration reached on a machine; None where its environment holds none."""
    found = environment.get("roofs")
    peaks = found.get("matmul") if isinstance(found, dict) else None
    values = [peaks.get(dtype) if isinstance(peaks, dict) else None, found.get("copy")] if isinstance(found, dict) else []
    sound = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and isfinite(v) and v > 0]
    return (float(sound[0]), float(sound[1])) if len(sound) == 2 else None


def roofline(group: Group, environment: dict[str, Any], style: Style) -> Plot | None:
    limits = roof(environment, next((row.dtype for row in group.rows if row.dtype), "float32"))
    points = []
    for row in group.rows:
        flops, moved, time = (row.value(name) for name in ("serve.flops", "serve.bytes", "serve.latency"))
        if flops and moved and time and min(flops, moved, time) > 0:
            points.append((row, flops / moved, flops / time))
    if limits is None or not points:
        return None
    peak, bandwidth = limits
    left, right = min(*(p[1] for p in points), peak / bandwidth) / 3, max(*(p[1] for p in points), peak / bandwidth) * 3
    xs = [left, peak / bandwidth, right]
    bottom = min(*(p[2] for p in points), left * bandwidth) / 2
    traces: list[dict] = [{
        "type": "scatter", "mode": "lines", "name": "roof", "x": xs, "y": [min(peak, x * bandwidth) for x in xs], "hoverinfo": "skip",
        "line": {"color": GREY, "width": 2},
    }]  # fmt: skip
    for method in dict.fromkeys(p[0].method for p in points):
        own = [p for p in points if p[0].method == method]
        traces.append({
            "type": "scatter", "mode": "markers", "name": html(method), "x": [p[1] for p in own], "y": [p[2] for p in own],
            "text": [f"{html(named(p[0]))} {html(p[0].case)}" for p in own], "hovertemplate": "%{text}<extra></extra>",
            "marker": {"color": style.colour(method), "symbol": style.symbol(method), "size": 9},
        })  # fmt: skip
    top = peak * 2
    layout = {
        "xaxis": {"title": {"text": "FLOPs a byte"}, **logarithmic(left, right), "range": [log10(left), log10(right)]},
        "yaxis": {"title": {"text": "FLOP/s"}, **logarithmic(bottom, top, "FLOP/s"), "range": [log10(bottom), log10(top)]},
    }
    rows = tuple(
        (named(r), fmt.clean(r.case), f"{i:.3g}", fmt.number(f, "FLOP/s"), f"{100 * f / min(peak, i * bandwidth):.0f} %")
        for r, i, f in points
    )
    note = f"The roof was measured on {fmt.clean(group.machine)}: {fmt.number(peak, 'FLOP/s')} and {fmt.number(bandwidth, 'B')}/s."
    return Plot(
        "Roofline",
        "roof",
        note,
        ({"data": traces, "layout": layout},),
        ("method", "case", "FLOPs a byte", "reached", "of the roof"),
        rows,
    )
