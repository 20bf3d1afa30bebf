"""`effbench tune`: chooses settings of one method for a wish, measures the choice on held-out data, prints how to use it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..api.errors import EffbenchError, RunError
from .options import Json

FOUND, NONE, STOPPED = 0, 1, 3


@dataclass(frozen=True)
class Options:
    task: str
    method: str
    maximize: str = ""
    minimize: str = ""
    subject_to: tuple[str, ...] = ()
    sampler: str = "lagrange"
    trials: int | None = None
    knobs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    case: str = ""
    data: str = ""
    size: str = "quick"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    budget: str = ""
    out: Path | None = None
    fresh: bool = False
    quiet: bool = False


def add(app: typer.Typer) -> None:
    app.command("tune")(command)


def command(
    task: Annotated[str, typer.Argument(help="Name of a task.")],
    method: Annotated[str, typer.Argument(help="Name of one of its methods.")],
    maximize: Annotated[str, typer.Option(help="The metric that is to be large, as serve.throughput.")] = "",
    minimize: Annotated[str, typer.Option(help="Or the metric that is to be small, as serve.cpu or build.time.")] = "",
    subject_to: Annotated[list[str] | None, typer.Option(help='"METRIC>=VALUE" or "METRIC<=VALUE"; may be repeated.')] = None,
    sampler: Annotated[str, typer.Option(help="lagrange, grid, random, tpe or nsga2.")] = "lagrange",
    trials: Annotated[int | None, typer.Option(min=1, help="Settings to measure; default 24, for grid all of them.")] = None,
    knob: Annotated[
        list[str] | None, typer.Option(help="NAME=V1,V2,... to choose from, or NAME=V to fix; may be repeated.")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="The same for params; each value needs a build.")] = None,
    case: Annotated[str, typer.Option(help="Default: the first case of the size.")] = "",
    data: Annotated[str, typer.Option(help='As in a suite: "clustered(n=20000)".')] = "",
    size: Annotated[str, typer.Option(help="smoke, quick or full.")] = "quick",
    device: Annotated[str, typer.Option(help="cpu, cuda or tpu.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    budget: Annotated[str, typer.Option(help="For tasks that train: steps=100.")] = "",
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/tune-TASK-METHOD. It resumes there.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Move earlier records aside, or use them.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Choose knobs and params of a method under constraints; judge the choice once on held-out data.

    Example:  effbench tune vector-search ivf --maximize serve.throughput --subject-to "recall@10>=0.95" --knob leaves=1,2,4,8,16,32,64

    Exit codes: 0 found; 1 no measured setting meets the constraints; 2 a mistake in the command; 3 interrupted, the same command resumes.
    """
    options = Options(
        task, method, maximize, minimize, tuple(subject_to or ()), sampler, trials, tuple(knob or ()), tuple(param or ()), case, data,
        size, device, threads, seed, budget, out, fresh, quiet or as_json,
    )  # fmt: skip
    try:
        found = tune(options)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        raise typer.Exit(STOPPED) from None
    typer.echo(json.dumps(found, indent=1, allow_nan=False) if as_json else text(found))
    raise typer.Exit(FOUND if found["feasible"] else NONE)


# -- from words to a bench ------------------------------------------------------------------------------------------------


def plan_of(options: Options, registry, space) -> tuple[Any, Any]:
    """A suite of one trial at the fixed settings, so that every mistake in the command is met by the checks of suites."""
    from ..plan import plan as plans
    from ..plan import suite as suites
    from .profile import settings, toml

    task, method = registry.task(options.task), registry.method(options.task, options.method)
    run: dict[str, Any] = {"task": task.name, "methods": [method.name]}
    if "serve" in task.phases:
        known = [case.name for case in task.cases if options.size in case.sizes] or [case.name for case in task.cases]
        run["cases"] = [options.case or known[0]]
    elif options.case:
        run["cases"] = [options.case]
    if options.data:
        run["data"] = [options.data]
    if options.budget:
        run["budget"] = settings((options.budget,), "--budget")
    head = {
        "name": f"tune-{task.name}", "size": options.size, "seeds": [options.seed], "devices": [options.device],
        "threads": options.threads,
    }  # fmt: skip
    lines = toml(head) + "\n[[run]]\n" + toml(run)
    fixed = {name: value for name, value in space.fixed.items() if space.kinds[name] == "param"}
    if fixed:
        lines += f'\n[params."{method.name}"]\n' + toml(fixed)
    plan = plans.make(suites.parse(lines, "command line"), registry)
    for group in plan.groups:
        if group.skipped:
            raise RunError(group.skipped[0][1], where=f"{task.name}/{method.name}", remedy="Choose another --device.")
    return plan, plan.groups[0].trials[0]


def tune(options: Options) -> dict[str, Any]:
    """What `effbench tune --json` prints."""
    from ..plan import suite as suites
    from ..plan.registry import Registry
    from ..run import command as runs
    from ..study import goals, samplers
    from ..study import space as spaces

    registry = Registry.read()
    task = registry.task(options.task, "effbench tune")
    info = registry.method(task.name, options.method, "effbench tune")
    suites.one_of(options.size, suites.SIZES, "size", "--size")
    suites.one_of(options.device, suites.DEVICES, "device", "--device")
    if reason := runs.absent(options.device):
        raise RunError(f"no device '{options.device}' here: {reason}", where="--device", remedy="Choose cpu.")
    wish = goals.wish(task, options.maximize, options.minimize, options.subject_to)
    sample = samplers.choose(options.sampler)
    space = spaces.make(info, options.knobs, options.params)
    plan, trial = plan_of(options, registry, space)
    count = options.trials or (space.size if options.sampler == "grid" else min(24, space.size))
    if options.sampler == "grid" and count > 5000:
        raise EffbenchError(
            f"the grid has {count} settings", where="--sampler grid", remedy="Give --trials, or name fewer values with --knob."
        )
    with runs.stoppable():
        return _tune(options, plan, trial, wish, space, sample, min(count, space.size))


def _tune(options: Options, plan, trial, wish, space, sample: Callable, count: int) -> dict[str, Any]:
    from ..measure.host import environment_key, fingerprint
    from ..run import provenance
    from ..run.assemble import Provenance
    from ..run.journal import Journal
    from ..run.materials import Materials
    from ..run.progress import Progress
    from ..run.schedule import Runner
    from ..run.supervisor import Nurseries
    from ..run.tune import Bench, check_ready

    folder = options.out or Path("runs") / f"tune-{trial.task}-{trial.method}"
    machine = fingerprint()
    key = environment_key(machine, options.threads, options.device)
    progress = Progress(count, quiet=options.quiet)
    with (
        Journal.open(folder, suite=plan.suite.name, text=plan.suite.text, fresh=options.fresh) as journal,
        Nurseries() as nurseries,
    ):
        for note in journal.notes:
            progress.line(f"note: {note}")
        journal.add_environment(key, {**machine, "threads": options.threads, "device": options.device})
        origin = Provenance(plan.suite.name, key, provenance.commit(), provenance.tree_digest())
        runner = Runner(plan, journal, origin, Materials(), Progress(count, quiet=True), nurseries)
        check_ready(runner, trial)
        knobs_set = any(space.kinds[name] == "knob" for name in space.settings((0,) * len(space.axes)))
        bench = Bench(runner, trial, trial.cases[0] if trial.cases else "", wish.metrics, knobs_set)
        try:
            asked = search(bench, options, wish, space, sample, count, progress)
            found = conclude(bench, options, wish, space, asked, progress)
        finally:
            bench.close(keep=all(axis.kind == "knob" for axis in space.axes))
            progress.close()
    found |= {"folder": str(folder), "measured": bench.measured, "measuring_seconds": round(bench.seconds, 3)}
    return found


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
        "cost_model": str(model) if model else "", "failed": sum(item["record"]["status"] not in ("ok", "unstable") for item in asked),
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
        "feasible": True, "params": params, "knobs": knobs, "predicted": item["predicted"] or wanted(measured[best][1]),
        "modelled": item["predicted"] is not None, "tuning": wanted(item["values"]), "held_out": wanted(held_out),
        "held_out_status": record["status"], "held_out_reason": record["reason"], "held_out_feasible": kept, "held_out_qualities": qualities,
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
