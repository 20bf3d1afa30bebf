"""Tables of groups: one model, drawn as terminal, plain text, markdown or CSV here, and as HTML by the templates."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..study.records import Loaded
from . import format as fmt
from .fronts import MAYBE, SURE, best, front, is_pair, pairs, peers
from .groups import Directions, Group, Row, groups

SHORT = {
    "build.time": "build", "build.flops": "build FLOPs", "build.peak_memory": "build memory", "serve.latency": "latency",
    "serve.throughput": "throughput", "serve.flops": "FLOPs", "serve.peak_memory": "memory", "size.bytes": "size",
    "size.parameters": "parameters",
}  # fmt: skip
MARKS = {SURE: "◆", MAYBE: "◇"}
LEGEND = "◆ on the front of {0} and {1}; ◇ dominated, but only within the intervals."
BEST = "* best of its case and budget, or not told apart from the best by its interval."


@dataclass(frozen=True)
class Cell:
    text: str
    raw: float | str | None = None  # what is sorted by, and what CSV holds
    detail: str = ""  # the interval, on the scale of the text
    best: bool = False
    why: str = ""  # how it was measured, or why it is missing
    href: str = ""  # a page of the same site
    low: float | None = None
    high: float | None = None
    rank: str = ""  # "2" or "1–3": places that the intervals allow


@dataclass(frozen=True)
class Column:
    name: str
    label: str
    numeric: bool = False
    better: str = ""
    facet: bool = False  # rows may be chosen by its values
    unit: str = ""


@dataclass(frozen=True)
class Line:
    cells: tuple[Cell, ...]
    mark: str = ""
    baseline: bool = False
    row: Row | None = None
    drawer: str = ""  # where its records lie: "shard:place,place"


@dataclass(frozen=True)
class Table:
    title: str
    caption: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    failed: tuple[tuple[str, ...], ...]  # method, settings, seed, status, reason


def tables(loaded: Loaded, *, baseline: str | None = None, fronts=None, better: Directions | None = None) -> list[Table]:
    """One table for each task, data set, size, device and environment of these records."""
    fronts = fronts if fronts is not None else suite_fronts(loaded)
    return tables_of(groups(loaded, baseline=baseline, better=better), fronts=fronts)


def tables_of(made: Sequence[Group], *, fronts=None) -> list[Table]:
    return [table(group, fronts=fronts) for group in made]


def suite_fronts(loaded: Loaded) -> list[list[str]]:
    """The pairs that the suite file names under [report] fronts; what is no pair of names is left out."""
    report = loaded.suite.get("report")
    named = report.get("fronts") if isinstance(report, dict) else None
    return [pair for pair in named if is_pair(pair)] if isinstance(named, list) else []


def table(group: Group, *, fronts=None) -> Table:
    names = [name for name in group.names if name in SHORT or name.startswith("quality.")]
    ratios = sorted({name for row in group.rows for name in row.ratios})
    labels, constant = _labels(group)
    columns = [Column(name, name) for name in ("method", *labels)]
    columns += [Column(name, SHORT.get(name, name.removeprefix("quality.")), True, group.better[name]) for name in names]
    columns += [Column(f"{name}.ratio", f"{SHORT.get(name, name)} / {group.baseline or 'baseline'}", True) for name in ratios]
    pair = next(iter(pairs(group, fronts)), None)
    marks, tops = {}, {name: set() for name in names}
    for rows in peers(group):
        marks |= front(rows, pair, group.better) if pair else {}
        for name in names:
            tops[name] |= best(rows, name, group.better[name])
    cells = [tuple(_cells(row, labels, names, ratios, tops)) for row in group.rows]
    lines = tuple(Line(c, MARKS.get(marks.get(id(row), ""), ""), row.baseline, row) for c, row in zip(cells, group.rows))
    notes = [LEGEND.format(*map(fmt.clean, pair))] if pair and lines else []
    return Table(
        fmt.clean(group.title), _caption(group, constant), tuple(columns), lines, (*notes, *_missing(group)), _failed(group)
    )


def label(row: Row, name: str) -> str:
    if name == "settings":
        return fmt.settings(row.shown)
    if name == "budget":
        return fmt.settings(row.budget)
    if name == "seeds":
        return str(len({record["seed"] for record in row.records}))
    return fmt.clean(getattr(row, name))


def _labels(group: Group) -> tuple[list[str], dict[str, str]]:
    """Label columns that differ between rows, and those that do not: the latter go into the caption."""
    varying, constant = [], {}
    for name in ("settings", "case", "budget", "backend", "dtype", "seeds", "status"):
        values = {label(row, name) for row in group.rows}
        if name in ("status", "settings") or len(values) > 1:
            if values != {""}:
                varying.append(name)
        elif values and values != {""}:
            constant[name] = values.pop()
    return varying, constant


def _cells(row: Row, labels: list[str], names: list[str], ratios: list[str], tops: dict[str, set[int]]):
    yield Cell(fmt.clean(row.method), row.method)
    for name in labels:
        text = label(row, name)
        yield Cell(text or fmt.MISSING, text, why=fmt.clean(row.reason) if name == "status" else "")
    for name in names:
        reading = row.readings.get(name)
        why = fmt.clean((reading or {}).get("how") or (reading or {}).get("reason") or ("" if reading else "not reported"))
        if reading is None or reading["value"] is None:
            yield Cell(fmt.MISSING, None, why=why)
        else:
            text = fmt.point(reading)
            yield Cell(text, reading["value"], fmt.bounds(reading), id(row) in tops[name], why)
    for name in ratios:
        reading = row.ratios.get(name)
        if reading is None and row.baseline:
            yield Cell("1×", 1.0, why="the baseline")
        elif reading is None:
            yield Cell(fmt.MISSING, None, why="no ratio was taken")
        else:
            yield Cell(fmt.ratio(reading["value"]), reading["value"], fmt.bounds(reading), why=reading.get("how", ""))


def _caption(group: Group, constant: dict[str, str]) -> str:
    key = {name: group.key[name] for name in ("size", "device", "threads")}
    parts = [f"{name} {fmt.clean(value)}" for name, value in {**key, **constant}.items() if value != ""]
    return ", ".join([group.machine, *parts]) + (f", baseline {fmt.clean(group.baseline)}" if group.baseline else "")


def _missing(group: Group) -> list[str]:
    """Reasons of missing readings, each once, with the methods it is true of."""
    reasons: dict[tuple[str, str], set[str]] = {}
    for row in group.rows:
        for name, reading in row.readings.items():
            if reading["value"] is None:
                reasons.setdefault((name, reading["reason"]), set()).add(row.method)
    methods = {row.method for row in group.rows}
    out = []
    for (name, reason), of in sorted(reasons.items()):
        whose = "" if of == methods else " (" + ", ".join(fmt.clean(m) for m in sorted(of)) + ")"
        out.append(f"{fmt.clean(name)}{whose}: {fmt.clean(reason)}")
    return out


def _failed(group: Group) -> tuple[tuple[str, ...], ...]:
    out = []
    for record in group.failed:
        what = fmt.settings(record["params"] | record["knobs"])
        out.append((record["method"], record["case"], what, str(record["seed"]), record["status"], record["reason"]))
    return tuple(tuple(fmt.clean(text) for text in line) for line in out)


def texts(line: Line, between: str = " ") -> list[str]:
    """A line's cells as text, marks and intervals included; `between` stands between a value and its interval."""
    out = []
    for index, cell in enumerate(line.cells):
        text = cell.text + ("*" if cell.best else "") + (f"{between}{cell.detail}" if cell.detail else "")
        out.append(f"{line.mark} {text}" if index == 0 and line.mark else text)
    return out


def legend(one: Table) -> list[str]:
    """The notes below a table of text, where "best" is a star."""
    return [*one.notes, *([BEST] if any(cell.best for line in one.lines for cell in line.cells) else [])]


def plain(made: Sequence[Table]) -> str:
    """Aligned columns for files and pipes; nothing is cut off."""
    out = []
    for one in made:
        out += [one.title, one.caption, ""]
        out += aligned([[c.label for c in one.columns], *map(texts, one.lines)], [c.numeric for c in one.columns])
        out += ["", *legend(one)]
        if one.failed:
            out += ["", f"{len(one.failed)} without a result:"]
            out += [" ".join(["  ", *filter(None, line[:-2]), f"{line[-2]}: {line[-1]}"]) for line in one.failed]
        out += ["", ""]
    return "\n".join(line.rstrip() for line in out).rstrip() + "\n"


def aligned(cells: list[list[str]], numeric: list[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(t.rjust(w) if right else t.ljust(w) for t, w, right in zip(line, widths, numeric)) for line in cells]


def markdown(made: Sequence[Table]) -> str:
    """GitHub's tables; every foreign string escaped."""
    out = []
    for one in made:
        out += [f"### {escape(one.title)}", "", escape(one.caption), ""]
        out.append("| " + " | ".join(escape(c.label) for c in one.columns) + " |")
        out.append("|" + "|".join(" ---: " if c.numeric else " --- " for c in one.columns) + "|")
        out += ["| " + " | ".join(escape(text) for text in texts(line)) + " |" for line in one.lines]
        out += ["", *(f"- {escape(note)}" for note in legend(one)), ""]
        if one.failed:
            out += [f"{len(one.failed)} without a result:", ""]
            out += ["| method | case | settings | seed | status | reason |", "|" + " --- |" * 6]
            out += ["| " + " | ".join(escape(text) for text in line) + " |" for line in one.failed]
            out.append("")
    return "\n".join(out)


def escape(text: str) -> str:
    """A string that markdown and HTML both show as it is; also a mention or an address stays text."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;").replace("://", ":&#47;/")
    return re.sub(r"([\\`*_{}\[\]|~#!])", r"\\\1", text).replace("&\\#", "&#")


def csv_text(loaded: Loaded, **how) -> str:
    """One flat table over all groups: SI values with `.low` and `.high`, failed trials included with status and reason."""
    made = groups(loaded, **how)
    names = sorted({name for group in made for row in group.rows for name in row.readings})
    head = ["task", "data", "size", "device", "threads", "environment", "method", "backend", "dtype", "case", "budget", "params"]
    head += ["knobs", "seeds", "status", "reason"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([inert(t) for t in head + [f"{name}{end}" for name in names for end in ("", ".low", ".high")]])
    for group in made:
        key = [group.key[name] for name in head[:6]]
        for row in group.rows:
            seeds = " ".join(str(seed) for seed in sorted({record["seed"] for record in row.records}))
            arm = [row.method, row.backend, row.dtype, row.case, *_compact(row.budget, row.params, row.knobs), seeds]
            values = [row.readings.get(name, {}).get(end) for name in names for end in ("value", "low", "high")]
            writer.writerow([inert(value) for value in [*key, *arm, row.status, row.reason, *values]])
        for r in group.failed:
            settings = _compact(r["budget"], r["params"], r["knobs"])
            arm = [r["method"], r["backend"], r.get("dtype", ""), r["case"], *settings, r["seed"]]
            writer.writerow([inert(value) for value in [*key, *arm, r["status"], r["reason"]] + [""] * 3 * len(names)])
    return stream.getvalue()


def _compact(*values: dict) -> list[str]:
    return [json.dumps(value, sort_keys=True) if value else "" for value in values]


def inert(value: Any) -> Any:
    """A spreadsheet must not take a foreign string for a formula."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = fmt.clean(value, 4000)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def show(made: Sequence[Table], console=None) -> None:
    """Print to a terminal with rich; anything else than a terminal gets the plain text."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console.file.write(plain(made))
        return
    for one in made:
        # Text objects, never markup: foreign strings may hold brackets.
        notes = Text("\n".join([one.caption, *legend(one)]))
        grid = RichTable(title=Text(one.title), caption=notes, title_justify="left", caption_justify="left")
        for column in one.columns:
            grid.add_column(Text(column.label), justify="right" if column.numeric else "left", overflow="fold")
        for line in one.lines:
            styles = ["bold" if cell.best else "" for cell in line.cells]
            grid.add_row(
                *(Text(text, style) for text, style in zip(texts(line, "\n"), styles)), style="dim" if line.baseline else None
            )
        console.print(grid)
        for method, case, what, seed, status, reason in one.failed:
            console.print(Text.assemble((status, "red"), f" {method} {case} {what} seed {seed}: {reason}"))
