"""The command line: parses, calls one function of the engine, prints. Nothing here measures or decides."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .api.errors import EffbenchError
from .commands import comparing, publishing, stores, tuning
from .commands.options import Json, directions

app = typer.Typer(
    name="effbench", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Measure efficiency techniques the way a hostile reviewer would.\n\nExample: effbench run quick",
)  # fmt: skip


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Name of a suite, or path of a .toml file.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; may be repeated.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this case of the tasks; may be repeated.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Instead of the suite's, as in a suite; may be repeated.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="cpu, cuda or tpu, instead of the suite's.")] = None,
    size: Annotated[str | None, typer.Option(help="smoke, quick or full, instead of the suite's.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated, instead of the suite's: 0,1,2")] = None,
    timeout: Annotated[float | None, typer.Option(help="Deadline of one trial in seconds.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory a trial may allocate, as 4GiB.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Measure again (earlier records are moved aside), or go on where it stopped.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/SUITE.")] = None,
    within: Annotated[float | None, typer.Option(help="Stop cleanly, resumable, before this many seconds are over.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print trials, minutes, memory and downloads; start nothing.")] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Leave only records, environment and suite in the run folder.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; trials whose data are missing are skipped.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")] = False,
    as_json: Json = False,
) -> None:
    """Run a benchmark suite. The same command resumes a run that was stopped.

    Examples:  effbench run quick    effbench run quick --task vector-search --plan    effbench run smoke --device cuda --within 500
    effbench run search --data "file(path='glove-100-angular.hdf5')"    effbench run attention-gpu --case n-65536 --within 200

    Exit codes: 0 measured; 1 some trials failed, or nothing was measured; 2 a mistake in the command or the suite; 3 stopped early.
    """
    from .run import command

    options = command.Options(
        suite, tuple(task or ()), tuple(method or ()), tuple(device or ()), size, parse_seeds(seeds), timeout, memory, fresh, out, within,
        bare, offline, quiet or as_json, tuple(data or ()), tuple(case or ()),
    )  # fmt: skip
    if within is not None:
        import time

        import psutil

        # A person's clock began when the command was given, not when Python had read its files.
        options.started = time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())
    try:
        _run(options, plan=plan, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command resumes", err=True)
        raise typer.Exit(command.STOPPED) from None


def _run(options, *, plan: bool, as_json: bool) -> None:
    from .run import command

    if plan:
        from .commands.preview import preview, text

        found = preview(command.make_plan(options), options)
        typer.echo(json.dumps(found, indent=1) if as_json else text(found))
        return
    outcome = command.run(options)
    if as_json:
        typer.echo(json.dumps({**outcome.__dict__, "folder": str(outcome.folder)}, indent=1))
    else:
        _after_run(outcome, bare=options.bare, quiet=options.quiet)
    raise typer.Exit(outcome.code)


def _after_run(outcome, *, bare: bool, quiet: bool) -> None:
    # Who stopped it, or gave it only so much time, does not want to wait for a report.
    if not quiet and not outcome.stopped and (outcome.folder / "records.jsonl").exists():
        from .publish import tables
        from .study import records

        loaded = records.read(outcome.folder)
        tables.show(tables.tables(loaded, better=directions()))
        if not bare:
            from .publish.report import report as write_report

            path = write_report(loaded, outcome.folder / "report.html", better=directions())
            typer.echo(f"report: {path}")
    counts = ", ".join(f"{count} {status}" for status, count in sorted(outcome.counts.items())) or "no records"
    typer.echo(
        f"{outcome.folder}: {counts}; {outcome.seconds:.0f} s" + (f"; {outcome.stopped}" if outcome.stopped else ""), err=quiet
    )


def parse_seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        seeds = tuple(int(part) for part in text.split(","))
        if any(seed < 0 or seed >= 2**31 for seed in seeds) or len(set(seeds)) < len(seeds):
            raise ValueError
    except ValueError:
        raise EffbenchError(
            f"'{text}' is not a list of seeds", where="--seeds", remedy="Write different integers from 0, as 0,1,2."
        ) from None
    return seeds


@app.command("list")
def list_(
    area: Annotated[str | None, typer.Argument(help="Only this area or task.")] = None,
    as_json: Json = False,
) -> None:
    """List tasks, their methods and the suites. Imports no technique.

    Example: effbench list search
    """
    from .plan.catalogue import catalogue, text

    found = catalogue(area)
    typer.echo(json.dumps(found, indent=1) if as_json else text(found))


@app.command()
def show(
    method: Annotated[str, typer.Argument(help="Name of a method; TASK/NAME where several tasks have one.")],
    as_json: Json = False,
) -> None:
    """Show a method: idea, file, settings, claims, tasks.

    Example: effbench show ivf
    """
    from .plan.catalogue import describe, text_of_method

    found = describe(method)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n\n".join(text_of_method(item) for item in found))


@app.command()
def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders or records files.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; default report.html beside the first records.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Method that ratios are taken to.")] = None,
    form: Annotated[str, typer.Option("--format", help="html, text, markdown or csv.")] = "html",
) -> None:
    """Write one self-contained HTML page (or print a table) of finished records.

    Examples:  effbench report runs/quick    effbench report runs/a runs/b --format markdown
    """
    from .publish import tables
    from .study import records

    loaded = records.read(run_folders)
    if form == "html":
        from .publish.report import report as write_report

        first = run_folders[0] if run_folders[0].is_dir() else run_folders[0].parent
        typer.echo(write_report(loaded, out or first / "report.html", baseline=baseline, better=directions()))
        return
    if form not in ("text", "markdown", "csv"):
        raise EffbenchError(f"unknown format '{form}'", where="--format", remedy="(known: html, text, markdown, csv).")
    made = tables.tables(loaded, baseline=baseline, better=directions())
    content = {"text": tables.plain, "markdown": tables.markdown}[form](made) if form != "csv" else tables.csv_text(loaded)
    if out:
        out.write_text(content, encoding="utf-8")
    else:
        typer.echo(content, nl=False)


@app.command()
def check(
    path: Annotated[str | None, typer.Argument(help="A method's name, a technique file, or nothing for all methods.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    as_json: Json = False,
) -> None:
    """Run the conformance set on methods: gates on two seeds, no cached answers, formula against counter, save and load.

    Examples:  effbench check    effbench check ivf    effbench check implementations/search/ivf.py
    """
    from .run.conformance import check as conform

    code = conform(path, task=task, as_json=as_json, echo=typer.echo)
    raise typer.Exit(code)


@app.command()
def profile(
    method: Annotated[str, typer.Argument(help="Name of a method.")],
    task: Annotated[str, typer.Option(help="Its task, where several have one of that name.")] = "",
    case: Annotated[str, typer.Option(help="Default: the last case of the size.")] = "",
    data: Annotated[str, typer.Option(help='As in a suite: "clustered(n=20000)".')] = "",
    size: Annotated[str, typer.Option(help="smoke, quick or full.")] = "quick",
    device: Annotated[str, typer.Option(help="cpu, cuda or tpu.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    knob: Annotated[list[str] | None, typer.Option(help="name=value; may be repeated.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="name=value; may be repeated.")] = None,
    budget: Annotated[str, typer.Option(help="For tasks that train: steps=100.")] = "",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="Folder for the trace; default profiles/TASK-METHOD-CASE.")] = None,
    as_json: Json = False,
) -> None:
    """Say where the time of a method's call goes: an operator table, and the framework's own trace file.

    Examples:  effbench profile naive --task attention-forward    effbench profile ivf --knob leaves=16 --size smoke --json
    effbench profile favor+ --task attention-forward --device cuda --dtype bfloat16 --size full --case n-4096
    """
    from .commands import profile as profiles
    from .publish import operators

    options = profiles.Options(
        method, task, case, data, size, device, threads, 0, tuple(knob or ()), tuple(param or ()), budget, out, dtype
    )  # fmt: skip
    found = profiles.profile(options)
    typer.echo(json.dumps(found, indent=1) if as_json else operators.text(found))


@app.command()
def doctor(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine's peak products and copies anew; records then refer to them.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="About how long the A/A floor may take; 0 leaves it out.")] = 20.0,
    device: Annotated[str, typer.Option(help="cpu or cuda: what is to be measured.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads that are to be timed.")] = 1,
    as_json: Json = False,
) -> None:
    """Say what is wrong with this host for measuring and what to do; measure its A/A floor.

    Examples:  effbench doctor    effbench doctor --calibrate    effbench doctor --seconds 0 --json

    Exit codes: 0 fit for measuring, perhaps with warnings; 1 something is bad; 2 a mistake in the command.
    """
    from .data.cache import roofline_folder
    from .measure import doctor as diagnosis
    from .plan.suite import one_of

    one_of(device, ("cpu", "cuda"), "device", "--device")
    found, more = diagnosis.diagnose(device, threads, seconds=seconds, folder=roofline_folder() if calibrate else None)
    answer = diagnosis.summary(found, **more)
    typer.echo(json.dumps(answer, indent=1) if as_json else diagnosis.text(found))
    if "roofline" in answer and not as_json:
        typer.echo(f"roofs: {answer['roofline']}")
    raise typer.Exit(1 if answer["state"] == "bad" else 0)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help='What to make: "method".')],
    name: Annotated[str, typer.Argument(help="Its name, as it will be registered.")],
    task: Annotated[str, typer.Option(help="The task whose interface it implements.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put the file; default the task's own area.")] = None,
) -> None:
    """Make the file of a new method, ready to fill in.

    Example: effbench new method my-index --task vector-search
    """
    from .plan.template import make

    typer.echo(make(kind, name, task, folder))


publishing.add(app)
comparing.add(app)
tuning.add(app)
stores.add(app)


def main() -> None:
    """Entry point: messages for a person end with exit code 2 and no traceback."""
    try:
        app()
    except EffbenchError as error:
        typer.echo(f"effbench: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"effbench: {where}{error.strerror or error}. Free space or choose another place, then repeat the command.", err=True
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
