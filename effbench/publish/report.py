"""One self-contained HTML page for one run or several: header, tables, plots with their numbers. Same records, same bytes."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..api.errors import RecordError
from ..api.record import STATUSES, identity
from ..study import synthetic
from ..study.records import Loaded
from . import format as fmt
from .groups import Directions, Group, Row, groups, machine
from .page import render
from .plots import Style, plots
from .roofs import roofline_plots
from .tables import suite_fronts, table


def report(
    loaded: Loaded | Sequence[Loaded],
    out: str | Path,
    baseline: str | None = None,
    fronts=None,
    better: Directions | None = None,
) -> Path:
    """Write the page to `out` and return its path.

    baseline: what comes first, instead of what the records name; ratios that were measured to another one are left out. fronts: pairs of readings, instead of what the suites
    name. better: directions of qualities ("quality.x" -> "lower") that their names do not tell. RecordError without records.
    """
    runs = [loaded] if isinstance(loaded, Loaded) else list(loaded)
    text = page_of(runs, baseline=baseline, fronts=fronts, better=better)
    return _write(Path(out), text.encode("utf-8"))


def page_of(runs: Sequence[Loaded], *, baseline: str | None = None, fronts=None, better: Directions | None = None) -> str:
    records = {identity(record): record for run in runs for record in run.records}
    if not records:
        raise RecordError("no records to report on", remedy="Name a run folder in which a trial has finished.")
    if fronts is None:
        named = [pair for run in runs for pair in suite_fronts(run)]
        fronts = sorted(named, key=str) if len(runs) > 1 else named
    environments = {key: facts for run in runs for key, facts in run.environments.items()}
    made = groups(Loaded(tuple(records.values()), environments), baseline=baseline, better=better)
    style = Style([row.method for group in made for row in group.rows])
    rooflines = roofline_plots(made, environments, style)
    sections = [section(group, number, style, fronts) for number, group in enumerate(made, start=1)]
    return render(
        "report.html.j2",
        plots=bool(rooflines) or any(part["plots"] for part in sections),
        rooflines=rooflines,
        title=_title(runs, records.values()),
        facts=facts(list(records.values()), environments),
        synthetic=any(record["suite"] == synthetic.NAME for record in records.values()),
        problems=sorted({problem for run in runs for problem in run.problems}),
        notes=sorted({note for run in runs for note in run.notes}),
        sections=sections,
        environments=[(machine(key, environments), flat(environments[key])) for key in sorted(environments)],
    )


def _title(runs: Sequence[Loaded], records) -> str:
    titles = {title for run in runs if isinstance(title := run.suite.get("title"), str) and title}
    return ", ".join(sorted(titles) or sorted({record["suite"] for record in records})) or "Report"


UNITS = {"memory": "B", "roofs.matmul.": "FLOP/s", "roofs.copy": "B/s"}  # of facts about machines, by how their names start


def flat(value: dict, prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as (dotted name, text), in order of name."""
    out: list[tuple[str, str]] = []
    for name in sorted(value):
        item = value[name]
        if isinstance(item, list) and item and all(isinstance(one, dict) for one in item):
            item = {str(place): one for place, one in enumerate(item)} if len(item) > 1 else item[0]
        if isinstance(item, dict) and prefix.count(".") < 3:
            out += flat(item, f"{prefix}{name}.")
        elif item not in ([], {}):
            out.append((fmt.clean(f"{prefix}{name}"), _fact(f"{prefix}{name}", item)))
    return out


def _fact(name: str, value: object) -> str:
    """With its unit where one is known."""
    unit = next((unit for start, unit in UNITS.items() if name.startswith(start)), "")
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if unit == "B/s" and plain:
        return f"{fmt.number(value, 'B')}/s"
    return fmt.number(value, unit) if unit and plain else fmt.clean(value)


def facts(records: list[dict], environments: dict[str, dict]) -> list[tuple[str, str]]:
    """The header: what ran, where, when, from which sources, and how it ended."""

    def all_of(name: str, limit: int = 5) -> str:
        values = sorted({record[name] for record in records})
        return ", ".join(values[:limit]) + (f" and {len(values) - limit} more" if len(values) > limit else "")

    counts = Counter(record["status"] for record in records)
    times = sorted(record["time"] for record in records)
    machines = sorted({machine(record["environment"], environments) for record in records})
    return [
        ("suite", all_of("suite")),
        ("machine", ", ".join(machines)),
        ("commit", all_of("commit")),
        ("sources", all_of("tree")),
        ("time", times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"),
        ("records", f"{len(records)}: " + ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])),
    ]


def section(group: Group, number: int, style: Style, fronts) -> dict[str, Any]:
    """What the templates need of a group."""
    made = table(group, fronts=fronts)
    return {
        "id": f"g{number}",
        "table": made,
        "plots": plots(group, style, fronts=fronts),
        "rows": [row_facts(line.row) for line in made.lines],
        "prepared": [prepared(record) for record in group.prepared],
        "tuning": tuning(group),
    }


def row_facts(row: Row) -> list[list[str]]:
    """Everything about a row, for its window: (name, text) pairs."""
    first = row.records[0]
    out = [["method", f"{row.method}, version {first['method_version']}, {row.backend} {row.dtype}".rstrip()]]
    for name, values in (("params", row.params), ("knobs", row.knobs), ("budget", row.budget), ("tuning", first.get("tuning", {}))):
        out += [[name, fmt.settings(values)]] if values else []
    out += [["case", row.case]] if row.case else []
    out.append(["status", f"{row.status}: {row.reason}" if row.reason else row.status])
    for name, reading in row.readings.items():
        how = reading.get("how") or reading.get("reason") or ""
        n = f", n = {reading['n']}" if reading.get("n") else ""
        out.append([name, fmt.interval(reading) + (f" ({fmt.clean(how)}{n})" if how or n else "")])
    for name, reading in row.ratios.items():
        out.append([f"{name} / baseline", f"{fmt.ratio(reading['value'])} {fmt.bounds(reading)} ({reading.get('how', '')})"])
    for name in ("seed", "key", "commit", "loaded", "data_digest", "time"):
        out.append([name, ", ".join(dict.fromkeys(str(record[name]) for record in row.records))])
    remarks = dict.fromkeys(fmt.clean(note) for record in row.records for note in record.get("notes", ()))
    out += [["notes", "; ".join(remarks)]] if remarks else []
    return [[fmt.clean(name), fmt.clean(text, 1000)] for name, text in out]


def prepared(record: dict) -> tuple[str, ...]:
    time = record["readings"].get("build.time")
    return tuple(
        fmt.clean(part) for part in (record["method"], str(record["seed"]), record["status"], fmt.interval(time), record["reason"])
    )


def tuning(group: Group) -> str:
    """How many tuning trials were recorded for each method: arms must have had the same number."""
    counts = Counter(record["method"] for record in group.tuning)
    return ", ".join(f"{fmt.clean(method)} {count}" for method, count in sorted(counts.items()))


def _write(out: Path, content: bytes) -> Path:
    """All of the page or nothing of it: a reader never sees half a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, out)
    except BaseException:
        os.unlink(name)
        raise
    return out
