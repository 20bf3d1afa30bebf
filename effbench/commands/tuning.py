"""`effbench tune`: chooses settings of one method for a wish, measures the choice on held-out data, prints how to use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..api.errors import EffbenchError, RunError
from .choosing import conclude, search, text
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

    Example:  effbench tune vector-search ivf --maximize serve.throughput --subject-to "recall@10>=0.95" --knob leaves=1,2,4,8,16,32

    Exit codes: 0 found; 1 no measured setting meets the constraints; 2 a mistake in the command; 3 interrupted, resumable.
    """
    options = Options(
        task, method, maximize, minimize, tuple(subject_to or ()), sampler, trials, tuple(knob or ()), tuple(param or ()), case,
        data, size, device, threads, seed, budget, out, fresh, quiet or as_json,
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
