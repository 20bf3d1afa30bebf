"""The verdicts of a comparison for a terminal, and as markdown for a pull request."""

from __future__ import annotations

from math import isfinite

from ..study.compare import GAINS, REGRESSIONS, Row, Verdicts
from . import format as fmt
from .tables import aligned, escape

MARKS = {**dict.fromkeys(REGRESSIONS, "🔴"), **dict.fromkeys(GAINS, "🟢"), "UNCLEAR": "🟡", "SAME": "⚪"}
COLUMNS = ("verdict", "benchmark", "case", "metric", "base", "head", "head / base", "wall", "note")
LIMIT = 60_000  # characters: GitHub refuses comments above 65,536


def headline(found: Verdicts) -> str:
    counts = ", ".join(f"{count} {word}" for word, count in found.counts.items()) or "nothing was measured"
    if found.code == 1:
        return f"regression: {counts}"
    return {2: f"nothing was measured{'' if not found.counts else ': ' + counts}", 3: f"unclear: {counts}"}.get(
        found.code, f"no regression: {counts}"
    )


def text(found: Verdicts, *, every: bool = False) -> str:
    """Aligned columns; what is the same is counted, and shown with `every`."""
    lines = [f"{found.base[:12]} against {found.head[:12]}: {headline(found)} ({found.seconds:.0f} s)"]
    if found.kind == "stored":
        lines[0] = f"{found.base} against {found.head} (stored runs): {headline(found)}"
    shown = found.rows if every else [row for row in found.rows if row.verdict != "SAME"]
    if shown:
        lines += ["", *aligned([list(COLUMNS), *map(cells, shown)], [False] * 4 + [True] * 4 + [False])]
    lines += ["", *(f"note: {fmt.clean(note)}" for note in found.notes), f"rule: {found.rule}"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def markdown(found: Verdicts) -> str:
    """For a pull request: changes first, everything else folded away."""
    names = "two stored runs" if found.kind == "stored" else f"`{found.base[:12]}` against `{found.head[:12]}`"
    mark = {0: "⚪", 1: "🔴", 2: "⚠️", 3: "🟡"}[found.code]
    lines = [f"### {mark} effbench: {escape(headline(found))}", "", f"{names}, {found.seconds:.0f} s. {escape(found.rule)}.", ""]
    changed = [row for row in found.rows if row.verdict != "SAME"]
    lines += table(changed)
    lines += [f"- {escape(fmt.clean(note))}" for note in found.notes]
    same = [row for row in found.rows if row.verdict == "SAME"]
    if same:
        lines += ["", "<details>", f"<summary>{len(same)} rows are the same</summary>", "", *table(same), "</details>"]
    whole = "\n".join(lines) + "\n"
    if len(whole) <= LIMIT:
        return whole
    head, cut = [], 0
    for line in lines:
        cut += len(line) + 1
        if cut > LIMIT - 200:
            break
        head.append(line)
    tail = ["</details>"] if "<details>" in head and "</details>" not in head else []
    return "\n".join([*head, *tail, "", "Cut off here: the JSON holds every row."]) + "\n"


def table(rows: list[Row]) -> list[str]:
    if not rows:
        return []
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| --- " * 5 + "| ---: " * 4 + "| --- |"]
    lines += [f"| {MARKS[row.verdict]} | " + " | ".join(escape(cell) for cell in cells(row)) + " |" for row in rows]
    return [*lines, ""]


def cells(row: Row) -> list[str]:
    return [
        row.verdict, fmt.clean(row.bench, 160), fmt.clean(row.setting, 80), row.metric, fmt.number(row.base, row.unit),
        fmt.number(row.head, row.unit), ratio(row.ratio, row.low, row.high), ratio(*row.wall) if row.wall else "",
        fmt.clean(row.note or row.how.split(", Student t over")[0], 200),
    ]  # fmt: skip


def ratio(value: float, low: float, high: float) -> str:
    if value != value:
        return fmt.MISSING
    if not isfinite(value):
        return "from 0"
    ends = f" [{low:.3f}, {high:.3f}]" if isfinite(low) and isfinite(high) and (low, high) != (value, value) else ""
    return f"{value:.3f}{ends}"
