"""The search of `effbench tune` and its end: drives a sampler, judges its choice on held-out data, says it to a person."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..api.errors import RunError

if TYPE_CHECKING:
    from .tuning import Options

# -- the search -----------------------------------------------------------------------------------------------------------


def search(bench, options: Options, wish, space, sample: Callable, count: int, progress) -> list[dict]:
    """Run the sampler to its end. Repeats itself exactly after an interruption: what it asked for comes from the journal."""
    known = already(bench, options, wish, space, count)
    sampler = sample(space, wish, count, options.seed, known)
    asked: dict[tuple, dict] = {}
    values = None
    while True:
        try:
            point, predicted = sampler.send(values)
        except StopIteration:
            break
        if point not in asked:
            if len(asked) >= count:
                break
            record = bench.measure(space.settings(point, "param"), space.settings(point, "knob"))
            asked[point] = {"point": point, "values": values_of(record, wish), "record": record, "predicted": predicted}
            _absent(bench, asked, wish)
            progress.line(line(len(asked), count, asked[point], space, wish, list(asked.values())))
        values = asked[point]["values"]
    return list(asked.values())


def already(bench, options: Options, wish, space, count: int) -> list[tuple]:
    """What other goals measured in this folder before this search first began: a model may use it."""
    text = json.dumps([str(wish), options.sampler, options.seed, count, [asdict(axis) for axis in space.axes]], default=str)
    name = f"search-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    journal = bench.journal
    event = journal.built.get(name)
    if event is None:
        event = {"key": name, "records": len(journal.done)}
        journal.write_event(event)
    early = {id(record) for record in list(journal.done.values())[: event["records"]] if record["role"] == "tuning"}
    if not early or space.size > 20000:
        return []
    found = []
    for point in space.points():
        record = bench.known(bench.trial(space.settings(point, "param"), space.settings(point, "knob")))
        if record is not None and id(record) in early:
            found.append((point, values_of(record, wish)))
    return found


def values_of(record: dict, wish) -> dict[str, float | None]:
    """Metric to value on what tuning may see, None for a failed trial; and what the method counted, for a cost model."""
    readings = record["readings"] if record["status"] in ("ok", "unstable") else {}
    counts = [name for name in readings if name.startswith("serve.tally.")]
    return {name: readings.get(name, {}).get("value") for name in dict.fromkeys((*wish.metrics, *counts))}


def _absent(bench, asked: dict, wish) -> None:
    """A first trial that works but lacks a metric will lack it in every trial: say so now."""
    (first,) = list(asked.values())[:1]
    record = first["record"]
    if len(asked) > 1 or record["status"] not in ("ok", "unstable"):
        return
    for name, value in first["values"].items():
        if name in wish.metrics and value is None:
            seen = sorted(key for key, item in record["readings"].items() if item["value"] is not None)
            reason = record["readings"].get(name, {}).get("reason", "")
            raise RunError(
                f"'{name}' is not measured for {record['task']}/{record['method']}" + (f" ({reason[:200]})" if reason else ""),
                where="effbench tune", remedy=f"(known: {', '.join(seen)}).",
            )  # fmt: skip


def line(number: int, count: int, item: dict, space, wish, asked: list[dict]) -> str:
    head = f"[{number:>{len(str(count))}}/{count}] {space.label(item['point'])}: "
    if item["record"]["status"] not in ("ok", "unstable"):
        return head + f"{item['record']['status']}: {item['record']['reason']}"
    best = wish.best([(other["point"], other["values"]) for other in asked])
    mark = "  <- best so far" if best is not None and asked[best] is item else ""
    return head + shown(item["values"], item["record"], wish) + ("" if wish.feasible(item["values"]) else "  (not feasible)") + mark


def shown(values: dict, record: dict, wish) -> str:
    from ..publish.format import number

    return ", ".join(
        f"{name.removeprefix('quality.')} {number(value, record['readings'][name]['unit']) if value is not None else '-'}"
        for name, value in values.items()
        if name in wish.metrics
    )


# -- the end --------------------------------------------------------------------------------------------------------------


def conclude(bench, options: Options, wish, space, asked: list[dict], progress) -> dict[str, Any]:
    """The choice with its values, or the nearest that was seen."""
    from ..study.cost import smoothed

    measured, model = [(item["point"], item["values"]) for item in asked], None
    if options.sampler == "lagrange":
        measured, model = smoothed(wish, measured)
    found = {
        "task": bench.template.task, "method": bench.template.method, "data": str(bench.template.data), "size": options.size,
        "device": options.device, "case": bench.case, "seed": options.seed, "wish": str(wish), "sampler": options.sampler,
        "trials": len(asked), "grid": space.size, "split": bench.source,
        "cost_model": str(model) if model else "",
        "failed": sum(item["record"]["status"] not in ("ok", "unstable") for item in asked),
    }  # fmt: skip

    def wanted(values: dict) -> dict:
        return {name: values.get(name) for name in wish.metrics}

    best = wish.best(measured)
    if best is None:
        near = wish.nearest(measured)
        item = asked[near] if near is not None else None
        reasons = {other["record"]["reason"] for other in asked if other["record"]["reason"]}
        return found | {
            "feasible": False,
            "nearest": item and {"settings": space.settings(item["point"]), "tuning": wanted(item["values"])},
            "reason": "" if item else f"every trial failed: {sorted(reasons)[0] if reasons else 'no reason'}",
        }
    item = asked[best]
    params, knobs = space.settings(item["point"], "param"), space.settings(item["point"], "knob")
    progress.line(f"held-out measurement of {space.label(item['point'])}")
    record = bench.held_out(params, knobs)
    if bench.source == "halves" and alone(record, wish):
        # One number has no halves: a draw of the data that tuning has not seen takes their place.
        bench.source = found["split"] = "seeds"
        record = bench.held_out(params, knobs)
    held_out = values_of(record, wish)
    qualities = {n: item["value"] for n, item in record["readings"].items() if n.startswith("quality.")}
    kept = record["status"] in ("ok", "unstable") and all(
        c.met(held_out[c.metric]) for c in wish.constraints if held_out[c.metric] is not None
    )
    return found | {
        "feasible": True, "params": params, "knobs": knobs,
        "predicted": item["predicted"] or wanted(measured[best][1]),
        "modelled": item["predicted"] is not None, "tuning": wanted(item["values"]), "held_out": wanted(held_out),
        "held_out_status": record["status"], "held_out_reason": record["reason"], "held_out_feasible": kept,
        "held_out_qualities": qualities,
        "units": {name: item["record"]["readings"].get(name, {}).get("unit", "1") for name in wish.metrics},
        "toml": suite_lines(bench.template, params, knobs),
    }  # fmt: skip


def alone(record: dict, wish) -> bool:
    """Whether a wanted quality is one number a trial and no mean over samples."""
    qualities = [record["readings"].get(name, {}) for name in wish.metrics if name.startswith("quality.")]
    return any(item.get("n", 1) < 2 for item in qualities)


def suite_lines(trial, params: dict, knobs: dict) -> str:
    from .profile import toml

    name = trial.method if re.fullmatch(r"[A-Za-z0-9_-]+", trial.method) else json.dumps(trial.method)
    run: dict[str, Any] = {"task": trial.task, "data": [str(trial.data)], "methods": [trial.method]}
    if trial.budget:
        run["budget"] = {key: value for key, value in asdict(trial.budget).items() if value not in (None, "")}
    parts = ["[[run]]\n" + toml(run)]
    parts += [f"[{kind}.{name}]\n" + toml(chosen) for kind, chosen in (("params", params), ("knobs", knobs)) if chosen]
    return re.sub(r'^"([A-Za-z0-9_-]+)" = ', r"\1 = ", "\n".join(parts), flags=re.MULTILINE)


SPLITS = {
    "validation": "the task's validation split, then its held-out data",
    "halves": "one half of the scored samples, then the other half",
    "seeds": "the seed, then the next seed: the task has no validation split for this",
}


def text(found: dict[str, Any]) -> str:
    """What a person reads."""
    from ..publish.format import number

    head = [
        f"{found['task']}/{found['method']} on {found['data']}" + (f", case {found['case']}" if found["case"] else ""),
        f"{found['wish']}; {found['sampler']}, {found['trials']} trials of {found['grid']} settings"
        + (f", {found['failed']} failed" if found["failed"] else ""),
    ]
    if not found["feasible"]:
        near = found["nearest"]
        if near is None:
            return "\n".join([*head, "", f"no setting was measured: {found['reason']}"])
        settings = ", ".join(f"{name}={value}" for name, value in near["settings"].items())
        values = ", ".join(f"{name} = {value:.6g}" for name, value in near["tuning"].items() if value is not None)
        return "\n".join([
            *head, "", "infeasible: none of the measured settings meets the constraints.", f"nearest: {settings} ({values})",
            "Loosen --subject-to to what is nearest, name more values with --knob or --param, or give more --trials.",
        ])  # fmt: skip
    settings = ", ".join(f"{name}={value}" for name, value in {**found["params"], **found["knobs"]}.items())
    rows = [("", "predicted", "tuning", "held-out")]
    for name, unit in found["units"].items():
        cells = [found[column].get(name) for column in ("predicted", "tuning", "held_out")]
        rows.append((name, *(number(value, unit) if value is not None and math.isfinite(value) else "-" for value in cells)))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:]))]).rstrip() for row in rows
    ]
    notes = [f"split: {SPLITS[found['split']]}"]
    others = [
        f"{name} = {value:.6g}"
        for name, value in found["held_out_qualities"].items()
        if name not in found["units"] and value is not None
    ]
    notes += [f"also held out: {', '.join(others)}"] if others else []
    notes += [f"cost model of {found['wish'].split()[1]}: {found['cost_model']}"] if found["cost_model"] else []
    if found["held_out_status"] not in ("ok", "unstable"):
        notes.append(f"the held-out measurement ended as {found['held_out_status']}: {found['held_out_reason']}")
    elif not found["held_out_feasible"]:
        notes.append("on held-out data the choice misses a constraint: ask for a little more than you need")
    return "\n".join([*head, "", f"setting: {settings}", *table, *notes, "", "In a suite:", "", found["toml"].rstrip()])
