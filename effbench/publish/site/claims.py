"""Claims as a table and as a picture: what papers promise against what these machines measured."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10
from typing import Any

from .. import format as fmt
from ..drawing import GREY, html, logarithmic
from ..plots import Plot
from ..tables import Cell, Column, Table
from . import links
from .boards import plain, text

FIELDS = ("method", "task", "text", "source", "promised", "measured", "low", "high", "verdict", "reason", "device", "environment")
ORDER = ("reproduced", "partly", "unclear", "not reproduced", "not testable here", "not tested")
COLOURS = {"reproduced": "#1a9e77", "partly": "#b8860b", "unclear": "#6a5acd", "not reproduced": "#d6455d"}
PICTURE_LIMIT = 40


def sound(claims: Sequence[dict]) -> list[dict]:
    """Claims with all fields, in order of verdict; a missing field is empty."""
    full = [{name: claim.get(name, "") for name in FIELDS} | {k: v for k, v in claim.items() if k not in FIELDS} for claim in claims]
    return sorted(full, key=lambda c: (_place(c["verdict"]), str(c["task"]), str(c["method"]), str(c["text"]), str(c["environment"])))


def _place(verdict: str) -> int:
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def untested(registry) -> list[dict]:
    """The claims that methods make, where nothing has judged them."""
    out = []
    for (task, name), info in sorted(registry.methods.items()) if registry else ():
        for claim in info.claims:
            verdict = "not testable here" if claim.untestable else "not tested"
            out.append({"method": name, "task": task, "text": claim.text, "source": claim.source, "verdict": verdict, "reason": claim.untestable})
    return out


def claims_table(claims: Sequence[dict], root: str, name, *, title: str = "Claims", drop: tuple[str, ...] = ()) -> Table:
    """`name(environment)` is what people call a machine."""
    columns = [
        Column("verdict", "verdict", facet=True), Column("method", "method", facet=True), Column("task", "task", facet=True),
        Column("claim", "claim"), Column("promised", "promised", True), Column("measured", "measured", True),
        Column("device", "device", facet=True), Column("machine", "machine", facet=True), Column("reason", "why"), Column("source", "source"),
    ]  # fmt: skip
    rows = []
    for claim in claims:
        task, method = str(claim["task"]), str(claim["method"])
        known = claim.get("pages", True)
        rows.append([
            Cell(fmt.clean(claim["verdict"], 40), fmt.clean(claim["verdict"], 40)),
            text(method, href=root + links.method(task, method) if known else ""), text(task, href=root + links.task(task) if known else ""),
            text(claim["text"]), value(claim["promised"]), measured(claim), text(claim["device"]),
            text(name(claim["environment"]) if claim["environment"] else ""), text(claim["reason"]), text(claim["source"]),
        ])  # fmt: skip
    keep = [index for index, column in enumerate(columns) if column.name not in drop]
    columns, rows = [columns[i] for i in keep], [[row[i] for i in keep] for row in rows]
    return plain(title, "One line a claim and machine.", columns, rows)


def number(given: Any) -> float | None:
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) and isfinite(given) else None


def value(given: Any) -> Cell:
    found = number(given)
    if found is None:
        return Cell(fmt.clean(given, 80) if given not in ("", None) else fmt.MISSING, None)
    return Cell(f"{found:.4g}", found)


def measured(claim: dict) -> Cell:
    found, low, high = (number(claim[name]) for name in ("measured", "low", "high"))
    if found is None:
        return value(claim["measured"])
    detail = f"[{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
    return Cell(f"{found:.4g}", found, detail, low=low, high=high)


def picture(claims: Sequence[dict], name) -> Plot | None:
    """Measured over promised, one line a claim and machine, coloured by verdict: on the line the promise is met exactly."""
    drawn = [c for c in claims if all((number(c[n]) or 0) > 0 for n in ("promised", "measured"))][:PICTURE_LIMIT]
    if not drawn:
        return None
    devices = {(c["device"], c["environment"]) for c in drawn}
    ends = [v for c in drawn for n in ("promised", "measured", "low", "high") if (v := number(c[n])) and v > 0]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    places = {id(c): len(drawn) - 1 - index for index, c in enumerate(drawn)}
    traces = [{
        "type": "scatter", "mode": "markers", "name": "promised", "x": [c["promised"] for c in drawn], "y": [places[id(c)] for c in drawn],
        "marker": {"symbol": "line-ns", "size": 18, "color": GREY, "line": {"width": 3, "color": GREY}},
        "text": [f"{html(c['text'])}<br>promised {number(c['promised']):.4g}" for c in drawn], "hovertemplate": "%{text}<extra></extra>",
    }]  # fmt: skip
    for verdict in dict.fromkeys(c["verdict"] for c in drawn):
        own = [c for c in drawn if c["verdict"] == verdict]
        colour = COLOURS.get(verdict, GREY)
        traces.append({
            "type": "scatter", "mode": "markers", "name": html(verdict), "x": [c["measured"] for c in own], "y": [places[id(c)] for c in own],
            "error_x": {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0,
                        "array": [max((number(c["high"]) or c["measured"]) - c["measured"], 0) for c in own],
                        "arrayminus": [max(c["measured"] - (number(c["low"]) or c["measured"]), 0) for c in own]},
            "text": [f"{html(c['method'])}: {html(c['text'])}<br>measured {html(measured(c).text)} {html(measured(c).detail)}" for c in own],
            "hovertemplate": "%{text}<extra></extra>", "marker": {"size": 10, "color": colour, "symbol": "circle"},
        })  # fmt: skip
    labels = [label(c, name, len(devices) > 1) for c in drawn]
    layout = {
        "xaxis": {"title": {"text": "promised and measured"}, **logarithmic(low, high), "range": [log10(low), log10(high)]},
        "yaxis": {"tickvals": [places[id(c)] for c in drawn], "ticktext": [html(text) for text in labels], "range": [-0.7, len(drawn) - 0.3],
                  "title": {"text": ""}},
        "height": 150 + 26 * len(drawn),
    }  # fmt: skip
    rows = tuple((t, fmt.clean(c["text"]), value(c["promised"]).text, f"{measured(c).text} {measured(c).detail}".strip(), fmt.clean(c["verdict"])) for t, c in zip(labels, drawn))
    note = "The bar is the promise, the point what was measured with its interval. Seconds saved and FLOPs saved are claims of their own."
    head = ("method", "claim", "promised", "measured", "verdict")
    return Plot("Promised and measured", "claims", note, ({"data": traces, "layout": layout},), head, rows)


def label(claim: dict, name, several: bool) -> str:
    extra = f", {claim['device']}" + (f" {name(claim['environment'])}" if several and claim["environment"] else "") if several else ""
    metric = claim.get("metric") or ""
    return fmt.clean(f"{claim['method']}{' ' + str(metric) if metric else ''}{extra}", 44)
