"""Claims as a table and as a picture: what papers promise against what these machines measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import isfinite, log10
from typing import Any

from ...api.values import SIZES
from ...study import claims as study
from .. import format as fmt
from ..drawing import GREY, html, logarithmic
from ..plots import Plot
from ..tables import Cell, Column, Table
from . import links
from .boards import plain, text

FIELDS = ("method", "task", "text", "source", "promised", "measured", "low", "high", "verdict", "reason", "device", "environment")
ORDER = ("reproduced", "partly", "unclear", "not reproduced", "not testable here", "not tested")
COLOURS = {"reproduced": "#1a9e77", "partly": "#b8860b", "unclear": "#6a5acd", "not reproduced": "#d6455d"}
MARKS = {"reproduced": "circle", "partly": "circle-open", "unclear": "diamond-open", "not reproduced": "x"}
PICTURE_LIMIT = 40  # lines of the front page's picture
ALL = 400  # lines of the picture with all claims
OVER = re.compile(r" over (\S+)")  # as `study.bounds.Part.promised` writes it


def sound(claims: Sequence[dict]) -> list[dict]:
    """Claims with all fields, in order of verdict; a missing field is empty."""
    full = [
        {name: claim.get(name, "") for name in FIELDS} | {k: v for k, v in claim.items() if k not in FIELDS} for claim in claims
    ]
    return sorted(
        full, key=lambda c: (_place(c["verdict"]), str(c["task"]), str(c["method"]), str(c["text"]), str(c["environment"]))
    )


def _place(verdict: str) -> int:
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def judged(loaded, registry) -> list[dict]:
    """The ledger of `study.claims` as claims of this page: one for each claim and place."""
    # A foreign size has no place in the order of sizes.
    known = [record for record in loaded.records if record["size"] in SIZES]
    out = []
    for one in study.verdicts(known, registry, loaded.environments, study.fairness(registry)):
        parts = [
            {"promised": part.promised, "op": part.bound.op, "bound": part.bound.value, "value": part.seen.value, "low": part.seen.low,
             "high": part.seen.high, "state": part.state, "text": study.measured_text(part)}
            for part in one.parts
        ]  # fmt: skip
        out.append({
            "method": one.method, "task": one.task, "text": one.claim, "source": one.source, "verdict": one.verdict,
            "reason": "; ".join(filter(None, [one.reason, *one.notes])), "device": one.device, "environment": one.environment,
            "data": one.data, "size": one.size, "budget": one.budget, "parts": parts, "promised": "; ".join(part["promised"] for part in parts),
            "measured": "; ".join(part["text"] for part in parts),
        })  # fmt: skip
    return out


def untested(registry) -> list[dict]:
    """The claims that methods make, where nothing has judged them."""
    out = []
    for (task, name), info in sorted(registry.methods.items()) if registry else ():
        for claim in info.claims:
            verdict = "not testable here" if claim.untestable else "not tested"
            out.append(
                {
                    "method": name,
                    "task": task,
                    "text": claim.text,
                    "source": claim.source,
                    "verdict": verdict,
                    "reason": claim.untestable,
                }
            )
    return out


def claims_table(claims: Sequence[dict], root: str, name, *, title: str = "Claims", drop: tuple[str, ...] = ()) -> Table:
    """`name(environment)` is what people call a machine."""
    columns = [
        Column("verdict", "verdict", facet=True), Column("method", "method", facet=True), Column("task", "task", facet=True),
        Column("claim", "claim"), Column("promised", "promised"), Column("measured", "measured"), Column("where", "on"),
        Column("device", "device", facet=True), Column("machine", "machine", facet=True), Column("reason", "why"), Column("source", "source"),
    ]  # fmt: skip
    rows = []
    for claim in claims:
        task, method = str(claim["task"]), str(claim["method"])
        known = claim.get("pages", True)
        rows.append([
            Cell(fmt.clean(claim["verdict"], 40), fmt.clean(claim["verdict"], 40)),
            text(method, href=root + links.method(task, method) if known else ""), text(task, href=root + links.task(task) if known else ""),
            long(claim["text"]), value(claim["promised"]), measured(claim), long(where(claim)), text(claim["device"]),
            text(name(claim["environment"]) if claim["environment"] else ""), long(claim["reason"]), long(claim["source"]),
        ])  # fmt: skip
    keep = [index for index, column in enumerate(columns) if column.name not in drop]
    columns, rows = [columns[i] for i in keep], [[row[i] for i in keep] for row in rows]
    return plain(title, "One line a claim and machine.", columns, rows)


def where(claim: dict) -> str:
    """Data, size and budget of the records that were judged."""
    budget = f"budget {claim['budget']}" if claim.get("budget") else ""
    return ", ".join(filter(None, [claim.get("data", ""), claim.get("size", ""), budget]))


def long(given: Any) -> Cell:
    return Cell(fmt.clean(given, 600) if given else fmt.MISSING, fmt.clean(given, 600) if given else "")


def number(given: Any) -> float | None:
    return float(given) if isinstance(given, (int, float)) and not isinstance(given, bool) and isfinite(given) else None


def value(given: Any) -> Cell:
    found = number(given)
    if found is None:
        return long(given)
    return Cell(f"{found:.4g}", str(found))


def measured(claim: dict) -> Cell:
    found, low, high = (number(claim[name]) for name in ("measured", "low", "high"))
    if found is None:
        return value(claim["measured"])
    detail = f"[{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
    return Cell(f"{found:.4g}", f"{found:.4g} {detail}".strip(), detail)


def parts_of(claim: dict) -> list[dict]:
    """The parts that can be drawn; a claim without parts is its own, promised as at least that much."""
    own = {
        "promised": f">= {claim['promised']}",
        "op": ">=",
        "bound": claim["promised"],
        "value": claim["measured"],
        "low": claim["low"],
        "high": claim["high"],
    }
    return [part for part in claim.get("parts") or [own] if all((number(part[n]) or 0) > 0 for n in ("bound", "value"))]


def kept(part: dict) -> tuple[float, float, float]:
    """How much of the promise was kept, with its interval: 1 is exactly that much, more is better than promised."""
    low, high = ((number(part[end]) or 0) if (number(part[end]) or 0) > 0 else part["value"] for end in ("low", "high"))
    if part["op"].startswith("<"):
        return part["bound"] / part["value"], part["bound"] / high, part["bound"] / low
    return part["value"] / part["bound"], low / part["bound"], high / part["bound"]


def weakest(claims: Sequence[dict]) -> list[tuple[dict, dict]]:
    """Each claim that can be drawn with the part of it that was kept least."""
    return [(claim, min(parts, key=lambda part: kept(part)[0])) for claim in claims if (parts := parts_of(claim))]


def sample(drawn: Sequence[tuple[dict, dict]], limit: int) -> list[tuple[dict, dict]]:
    """At most about `limit` of them, each verdict by its share of all and at least once, spread over its claims."""
    if len(drawn) <= limit:
        return list(drawn)
    chosen = []
    for verdict in dict.fromkeys(claim["verdict"] for claim, _ in drawn):
        own = [pair for pair in drawn if pair[0]["verdict"] == verdict]
        count = max(1, round(limit * len(own) / len(drawn)))
        chosen += [own[i * len(own) // count] for i in range(count)]
    return chosen


def picture(claims: Sequence[dict], name, limit: int = PICTURE_LIMIT) -> Plot | None:
    """Measured against promised, one line a claim and a machine, coloured by verdict."""
    everything = weakest(claims)
    drawn = sample(everything, limit)
    if not drawn:
        return None
    several = len({(claim["device"], claim["environment"]) for claim, _ in drawn}) > 1
    shares = [kept(part) for _, part in drawn]
    low, high = (
        min(1.0, *(end for share in shares for end in share)) / 1.2,
        max(1.0, *(end for share in shares for end in share)) * 1.2,
    )
    count = len(drawn)
    traces: list[dict] = [{
        "type": "scatter", "mode": "lines", "name": "as promised", "x": [1, 1], "y": [-0.7, count - 0.3], "hoverinfo": "skip",
        "line": {"color": GREY, "width": 2, "dash": "dot"},
    }]  # fmt: skip
    for verdict in dict.fromkeys(claim["verdict"] for claim, _ in drawn):
        own = [(count - 1 - i, *pair, share) for i, (pair, share) in enumerate(zip(drawn, shares)) if pair[0]["verdict"] == verdict]
        colour = COLOURS.get(verdict, GREY)
        traces.append({
            "type": "scatter", "mode": "markers", "name": html(verdict), "x": [share[0] for *_, share in own], "y": [place for place, *_ in own],
            "error_x": {"type": "data", "symmetric": False, "thickness": 1.5, "width": 0, "color": colour,
                        "array": [max(s[2] - s[0], 0) for *_, s in own], "arrayminus": [max(s[0] - s[1], 0) for *_, s in own]},
            "text": [f"{html(c['method'])}: {html(c['text'], 160)}<br>promised {html(p['promised'])}<br>measured {html(shown(p))}" for _, c, p, _ in own],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 10, "color": colour, "symbol": MARKS.get(verdict, "circle-open")},
        })  # fmt: skip
    labels = [label(claim, part, name, several) for claim, part in drawn]
    repeated = {text for text, count in Counter(labels).items() if count > 1}
    labels = [fmt.clean(f"{place(c, p)}: {text}", 60) if text in repeated else text for text, (c, p) in zip(labels, drawn)]
    layout = {
        "xaxis": {"title": {"text": "measured / promised"}, **logarithmic(low, high),
                  "range": [log10(low), log10(high)]},
        "yaxis": {"tickvals": list(range(count - 1, -1, -1)), "ticktext": [html(text, 60) for text in labels], "range": [-0.7, count - 0.3],
                  "title": {"text": ""}},
        "height": 170 + 28 * count,
    }  # fmt: skip
    rows = tuple(
        (text, fmt.clean(c["text"]), fmt.clean(p["promised"]), shown(p), fmt.clean(c["verdict"]))
        for text, (c, p) in zip(labels, drawn)
    )
    shown_of = f" {len(drawn)} of {len(everything)}, each verdict by its share." if len(drawn) < len(everything) else ""
    note = (
        "Right of the line is more than promised. One line a claim and a machine, by the part that was kept least; bars are intervals. "
        f"Seconds saved and FLOPs saved are claims of their own.{shown_of}"
    )
    head = ("method", "claim", "promised", "measured", "verdict")
    return Plot("Promised and measured", "claims", note, ({"data": traces, "layout": layout},), head, rows)


def shown(part: dict) -> str:
    return fmt.clean(part.get("text") or f"{part['value']:.4g}")


def place(claim: dict, part: dict) -> str:
    """What tells apart the parts of claims that measure the same: their case, else the data set."""
    case = re.search(r" case (\S+)", str(part["promised"]))
    return case[1] if case else str(claim.get("data", "")).partition("(")[0]


def label(claim: dict, part: dict, name, several: bool) -> str:
    where = f", {name(claim['environment']) if claim['environment'] else claim['device']}" if several else ""
    metric = str(part["promised"]).split(" ")[0].removeprefix("quality.").removeprefix("serve.")
    over = OVER.search(str(part["promised"]))
    against = f" / {over[1]}" if over else ""
    return fmt.clean(f"{claim['method']} {metric if metric not in ('>=', '<=') else ''}{against}{where}".replace(" ,", ","), 60)
