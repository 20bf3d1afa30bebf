"""Verdicts on what papers promise, computed from records: per claim, per machine, per data set.

reproduced             every part holds with its whole interval
partly                 the parts that were named in advance suffice, and they hold
not reproduced         a part fails with its whole interval
unclear                an interval spans its bound or is missing, or a baseline of the task is missing, failed, or was tuned less
not testable here      the claim says why, or the method refused this machine
not tested             there are no records of the size that the claim needs
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..api.values import SIZES, Claim
from ..plan.origins import mount
from ..plan.registry import MethodInfo, Registry, TaskInfo
from .bounds import FAILS, HOLDS, MISSING, Part, about, evaluate, usable, why
from .merge import latest

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
UNCLEAR, NOT_TESTABLE, NOT_TESTED = "unclear", "not testable here", "not tested"
WORDS = (REPRODUCED, PARTLY, NOT_REPRODUCED, UNCLEAR, NOT_TESTABLE, NOT_TESTED)
PLACE = ("environment", "device", "size", "dtype", "threads")
Unfair = Callable[[str, dict, dict], str]


@dataclass(frozen=True)
class Verdict:
    """One line of the ledger. `environment`, `device`, `data` and `size` are "" where nothing was measured."""

    task: str
    method: str
    claim: str
    source: str
    verdict: str
    reason: str = ""
    parts: tuple[Part, ...] = ()
    environment: str = ""
    machine: str = ""
    device: str = ""
    data: str = ""
    size: str = ""
    budget: str = ""
    notes: tuple[str, ...] = ()


def verdicts(
    records: Sequence[dict], registry: Registry, environments: dict | None = None, unfair: Unfair | None = None
) -> list[Verdict]:
    """The ledger: every claim of every registered method, one verdict for each place where it was measured."""
    measured = [record for record in latest(records) if record["role"] == "measure"]
    found = []
    for (task, _), info in sorted(registry.methods.items()):
        own = [record for record in measured if record["task"] == task]
        for claim in info.claims:
            found += of_claim(claim, info, registry.task(task), own, registry, environments or {}, unfair)
    return found


def of_claim(claim: Claim, info: MethodInfo, task: TaskInfo, records, registry: Registry, environments, unfair) -> list[Verdict]:
    head = (task.name, info.name, claim.text, claim.source)
    if claim.untestable:
        return [Verdict(*head, NOT_TESTABLE, claim.untestable)]
    named = any(part.data for part in claim.parts)
    if named or any(part.budget for part in claim.parts):
        records = [record for record in records if any(about(part, {**record, "case": part.case}) for part in claim.parts)]
    own = [record for record in records if record["method"] == info.name]
    large = [record for record in own if SIZES.index(record["size"]) >= SIZES.index(claim.size)] if claim.size in SIZES else own
    if not own:
        where = " on " + " or ".join(sorted({part.data for part in claim.parts if part.data})) if named else ""
        where += "".join(f" at equal {budget}" for budget in sorted({part.budget for part in claim.parts if part.budget}))
        return [Verdict(*head, NOT_TESTED, f"no records of {info.name}{where}")]
    if not large:
        sizes = ", ".join(sorted({record["size"] for record in own}, key=SIZES.index))
        return [Verdict(*head, NOT_TESTED, f"it needs size {claim.size} and was measured at {sizes} only")]
    places: dict[tuple, list[dict]] = {}
    for record in large:
        places.setdefault(place_of(record, named), []).append(record)
    out = []
    for place, mine in sorted(places.items()):
        cell = [record for record in records if place_of(record, named) == place]
        verdict, reason, parts, notes = weigh(claim, info, task, mine, cell, registry, unfair)
        first, machine = mine[0], environments.get(mine[0]["environment"], {})
        label = machine.get("cpu", "") if first["device"] == "cpu" else next((g["name"] for g in machine.get("gpus") or ()), "")
        budget = ", ".join(f"{name}={value}" for name, value in first["budget"].items())
        data = ", ".join(sorted({record["data"] for record in mine}))
        out.append(
            Verdict(*head, verdict, reason, parts, first["environment"], label, first["device"], data, first["size"], budget, notes)
        )
    return out


def place_of(record: dict, named: bool) -> tuple:
    """What must be the same for records to speak about one claim together; data too, unless the claim's parts name theirs."""
    budget = json.dumps(record["budget"], sort_keys=True)
    return (*(str(record.get(name, "")) for name in PLACE), budget, "" if named else record["data"])


def weigh(claim, info, task, mine, cell, registry, unfair) -> tuple[str, str, tuple[Part, ...], tuple[str, ...]]:
    if not usable(mine):
        statuses = {record["status"] for record in mine}
        return (NOT_TESTABLE if statuses == {"skipped"} else UNCLEAR), f"{info.name} {why(mine)}", (), ()
    others = [name for name in task.baselines if name != info.name]
    others += [part.over for part in claim.parts if part.over and part.over not in (*others, info.name)]
    for name in others:
        if reason := unmet(name, info, task, mine, cell, registry):
            return UNCLEAR, reason, (), ()
    needed = {part.over for part in claim.parts if part.over and part.over != info.name}
    if unfair is not None:
        for name in sorted(needed):
            if reason := unequal(task.name, usable(mine), [r for r in usable(cell) if r["method"] == name], unfair):
                return UNCLEAR, f"not comparable with {name}: {reason}", (), ()
    parts = tuple(evaluate(part, cell, info, registry.methods.get((task.name, part.over))) for part in claim.parts)
    notes = remarks(info, mine, others, cell, registry, task)
    return (*decide(claim, parts), parts, notes)


def decide(claim: Claim, parts: Sequence[Part]) -> tuple[str, str]:
    if not parts:
        return NOT_TESTED, "the claim names no bound"
    states = [part.state for part in parts]
    if all(state == HOLDS for state in states):
        return REPRODUCED, ""
    rest = "; ".join(f"part {i + 1} {explain(part)}" for i, part in enumerate(parts) if part.state != HOLDS)
    if all(state == MISSING for state in states):
        return NOT_TESTED, parts[0].seen.reason
    if claim.partly and all(states[i] == HOLDS for i in claim.partly):
        return PARTLY, rest
    decisive = [states[i] for i in claim.partly] if claim.partly else states
    return (NOT_REPRODUCED if FAILS in decisive else UNCLEAR), rest


def explain(part: Part) -> str:
    where = f" in {part.place}" if part.place else ""
    if part.state == FAILS:
        return f"fails{where}"
    return f"is open{where}: {part.seen.reason or 'the interval spans the bound'}"


def unmet(name: str, info: MethodInfo, task: TaskInfo, mine, cell, registry: Registry) -> str:
    """Why the baseline `name` does not stand up, or ""."""
    found = [record for record in cell if record["method"] == name]
    if not found:
        return f"baseline '{name}' was not measured here"
    if not usable(found):
        return f"baseline '{name}' {why(found)}"
    theirs = registry.methods.get((task.name, name))
    tunable = theirs is None or any(setting.tune is not None for setting in theirs.settings.values())
    given = max((record.get("tuning", {}).get("trials", 0) for record in usable(mine)), default=0)
    # Where records at tuned settings lie beside older ones at the defaults, the tuned ones are compared: see bounds.by_seed.
    spent: dict[str, list[int]] = {}
    for record in usable(found):
        spent.setdefault(record["data"], []).append(record.get("tuning", {}).get("trials", 0))
    got = min(min(filter(None, trials), default=0) for trials in spent.values())
    if tunable and got < given:
        return f"baseline '{name}' was tuned with {got} trials, {info.name} with {given}"
    if any(record.get("tuning", {}).get("failed") for record in usable(found)):
        return f"the tuning of baseline '{name}' failed"
    return ""


def unequal(task: str, mine: list[dict], theirs: list[dict], unfair: Unfair) -> str:
    for record in mine:
        for other in theirs:
            same = all(record[name] == other[name] for name in ("seed", "case", "data"))
            if same and (reason := unfair(task, record, other)):
                return reason
    return ""


def remarks(info: MethodInfo, mine, others, cell, registry: Registry, task: TaskInfo) -> tuple[str, ...]:
    notes = []
    arms = [info.name, *others]
    tunable = [name for name in arms if (m := registry.methods.get((task.name, name))) and any(s.tune for s in m.settings.values())]
    tuned = {r["method"] for r in cell if r.get("tuning", {}).get("trials")}
    if tunable and not tuned & set(tunable):
        notes.append("no arm was tuned: all ran at their defaults")
    if stale := sorted({r["method"] for r in cell if r.get("tuning", {}).get("stale")} & set(arms)):
        notes.append(f"tuned with an earlier version: {', '.join(stale)}")
    return tuple(notes)


def fairness(registry: Registry) -> Unfair:
    """`Task.unfair` of every task, imported when it is first asked; a task that cannot be imported has no objection."""
    tasks: dict = {}

    def ask(name: str, record: dict, other: dict) -> str:
        if name not in tasks:
            info = registry.task(name)
            mount(info.file.origin)
            tasks[name] = getattr(importlib.import_module(info.file.absolute), info.cls)()
        return tasks[name].unfair(record, other)

    return ask


# -- for people -----------------------------------------------------------------------------------------------------------


def plain(found: Sequence[Verdict]) -> list[dict]:
    """The ledger as JSON-ready rows; an open end of an interval is null."""

    def number(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    rows = []
    for one in found:
        row = {name: value for name, value in vars(one).items() if name not in ("parts", "notes")}
        row["notes"] = list(one.notes)
        row["parts"] = [
            {
                "promised": part.promised, "state": part.state, "value": number(part.seen.value), "low": number(part.seen.low),
                "high": number(part.seen.high), "unit": part.seen.unit, "how": part.seen.how, "reason": part.seen.reason, "place": part.place,
            }
            for part in one.parts
        ]  # fmt: skip
        rows.append(row)
    return rows


def measured_text(part: Part) -> str:
    seen = part.seen
    if seen.value is None:
        return "-"
    span = f" [{seen.low:.3g}, {seen.high:.3g}]" if seen.low is not None and seen.high is not None else ""
    return f"{seen.value:.3g}{span}" + (f" {seen.unit}" if seen.unit != "1" else "")


def text(found: Sequence[Verdict]) -> str:
    lines = []
    for one in found:
        where = ", ".join(
            filter(None, [one.machine or one.device, one.device if one.machine else "", one.size, one.data, one.budget])
        )
        lines += [f"{one.task}/{one.method}: {one.verdict}" + (f"  ({where})" if where else "")]
        lines += [f"  claim    {one.claim}", f"  source   {one.source}"]
        for part in one.parts:
            how = ", ".join(filter(None, [part.place, part.seen.how, part.seen.reason]))
            lines.append(f"  {part.state:<8} {part.promised}: {measured_text(part)}" + (f" ({how})" if how else ""))
        lines += [f"  because  {one.reason}"] if one.reason else []
        lines += [f"  note     {note}" for note in one.notes] + [""]
    counts = {word: sum(one.verdict == word for one in found) for word in WORDS}
    return "\n".join([*lines, ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no claims"])


def markdown(found: Sequence[Verdict]) -> str:
    """The ledger as one table."""

    def cell(value: str) -> str:
        return value.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")

    lines = ["| technique | claim | source | promised | measured | verdict | where |", "|---|---|---|---|---|---|---|"]
    for one in found:
        promised = "; ".join(part.promised for part in one.parts)
        seen = "; ".join(measured_text(part) for part in one.parts) or one.reason
        where = ", ".join(filter(None, [one.machine or one.device, one.size, one.data]))
        row = (f"{one.task}/{one.method}", one.claim, one.source, promised or "-", seen or "-", one.verdict, where or "-")
        lines.append("| " + " | ".join(map(cell, row)) + " |")
    return "\n".join(lines) + "\n"
