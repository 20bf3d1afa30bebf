"""The command line: parses, calls one function of the engine, prints. Nothing here measures or decides."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from .api.errors import EffbenchError
from .commands import comparing

app = typer.Typer(
    name="effbench", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Measure efficiency techniques the way a hostile reviewer would.\n\nExample: effbench run quick",
)  # fmt: skip
data_app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: list, fetch, verify, carry to a machine without a network.\n\nExample: effbench data list",
)
results_app = typer.Typer(no_args_is_help=True, help="Committed reference records.\n\nExample: effbench results add runs/reference")
app.add_typer(data_app, name="data")
app.add_typer(results_app, name="results")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Name of a suite, or path of a .toml file.")],
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; may be repeated.")] = None,
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

    Exit codes: 0 measured; 1 some trials failed, or nothing was measured; 2 a mistake in the command or the suite; 3 stopped early.
    """
    from .run import command

    options = command.Options(
        suite, tuple(task or ()), tuple(method or ()), tuple(device or ()), size, parse_seeds(seeds), timeout, memory, fresh, out, within,
        bare, offline, quiet or as_json,
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


def directions() -> dict[str, str]:
    """Which way each quality is better, as the tasks say."""
    from .plan.registry import Registry

    return {f"quality.{name}": metric.better for task in Registry.read().tasks.values() for name, metric in task.metrics.items()}


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
def publish(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="Folders of records: results/, run folders, other people's.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the site; files of an earlier site in it are replaced.")] = Path("site"),
    as_json: Json = False,
) -> None:
    """Turn record folders into a static site that needs no server and no network.

    Examples:  effbench publish results/ --out site    effbench publish results/ runs/quick --out site

    Exit codes: 0 published; 1 published, but something is damaged or has no result; 2 nothing to publish.
    """
    from .publish.site.build import publish as build

    made = build(paths, out)
    for problem in made.problems[:50]:
        typer.echo(f"problem: {problem}", err=True)
    if as_json:
        typer.echo(json.dumps({**made.__dict__, "index": str(made.index)}, indent=1))
    else:
        typer.echo(
            f"{made.index}: {made.records} records, {made.pages} pages, {made.bytes / 1e6:.1f} MB; {len(made.problems)} problems"
        )
    raise typer.Exit(made.code)


TASK = Annotated[str, typer.Option(help="The task, where the records have several.")]
DATA = Annotated[str, typer.Option(help="The data set, as it is written in records or without its arguments.")]
ONE = Annotated[str, typer.Option(help="Only this one.")]


def one_group(paths, case: str, **wanted: str):
    """The group of records that options choose, of one task on one machine."""
    from .publish import groups, paper
    from .study.merge import gather, joined

    runs, problems = gather(paths)
    for problem in problems[:20]:
        typer.echo(f"problem: {problem}", err=True)
    return paper.narrowed(paper.choose(groups.groups(joined(runs), better=directions()), **wanted), case)


@app.command()
def table(
    paths: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders or files of records.")],
    task: TASK = "",
    data: DATA = "",
    size: ONE = "",
    device: ONE = "",
    machine: ONE = "",
    case: ONE = "",
    column: Annotated[list[str] | None, typer.Option(help="A reading to show, as serve.latency; may be repeated.")] = None,
    form: Annotated[str, typer.Option("--format", help="latex, markdown or csv.")] = "latex",
    out: Annotated[Path | None, typer.Option(help="A file; default is the terminal.")] = None,
) -> None:
    """Print one table for a paper: one task on one data set and one machine.

    Example: effbench table results/ --task vector-search --case batch-256 --column quality.recall@10 --column serve.latency
    """
    from .publish import paper

    group = one_group(paths, case, task=task, data=data, size=size, device=device, machine=machine)
    text = paper.table_text(group, form, columns=column or ())
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        typer.echo(text, nl=False)


@app.command()
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders or files of records.")],
    out: Annotated[Path, typer.Option(help="The file: .svg, .pdf, .png (these need the extra 'figures'), or plotly's .json.")],
    kind: Annotated[str, typer.Option(help="front, ratio, scaling or curve.")] = "front",
    x: Annotated[str, typer.Option(help="Reading across, of a front.")] = "serve.latency",
    y: Annotated[str, typer.Option(help="Reading upwards, of a front.")] = "quality.recall@10",
    task: TASK = "",
    data: DATA = "",
    size: ONE = "",
    device: ONE = "",
    machine: ONE = "",
    case: ONE = "",
) -> None:
    """Draw one figure for a paper: one task on one data set and one machine.

    Example: effbench plot results/ --task vector-search --case batch-256 --out front.pdf
    """
    from .publish import paper

    group = one_group(paths, case, task=task, data=data, size=size, device=device, machine=machine)
    typer.echo(paper.draw(paper.figure(group, kind, x=x, y=y), out))


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records files, or folders of them.")],
    as_json: Json = False,
) -> None:
    """Check records that someone else made: schema, units, plausible numbers, sources against their commit, replay.

    Example: effbench validate results/their-machine

    Exit codes: 0 nothing wrong; 1 errors.
    """
    from .study import validate as study

    count, findings = study.validate(files)
    if as_json:
        typer.echo(json.dumps({"records": count, "findings": [finding.__dict__ for finding in findings]}, indent=1))
    else:
        typer.echo(study.text(count, findings))
    raise typer.Exit(1 if any(finding.level == study.ERROR for finding in findings) else 0)


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records files, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the union; may be one of the given.")],
) -> None:
    """Put records of several places into one folder. Order does not matter, and merging twice changes nothing.

    Example: effbench merge runs/a runs/b --out runs/both
    """
    from .study.merge import merge as union

    loaded, problems = union(files, out)
    for problem in problems[:50]:
        typer.echo(f"problem: {problem}", err=True)
    typer.echo(f"{out}: {len(loaded.records)} records of {len(loaded.environments)} machines")
    raise typer.Exit(1 if problems else 0)


@app.command()
def claims(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Run folders or records files; none means the committed results.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which claims of papers the records reproduce, and which not.

    Examples:  effbench claims    effbench claims runs/quick
    """
    from .plan.registry import Registry
    from .study import claims as study
    from .study import records, results

    found = paths or results.files()
    if not found:
        raise EffbenchError(
            "there are no committed results", where="effbench claims", remedy="Name a run folder: effbench claims runs/quick."
        )
    loaded, registry = records.read(found), Registry.read()
    ledger = study.verdicts(loaded.records, registry, loaded.environments, study.fairness(registry))
    typer.echo(json.dumps(study.plain(ledger), indent=1) if as_json else study.text(ledger))


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
    out: Annotated[Path | None, typer.Option(help="Folder for the trace; default profiles/TASK-METHOD-CASE.")] = None,
    as_json: Json = False,
) -> None:
    """Say where the time of a method's call goes: an operator table, and the framework's own trace file.

    Examples:  effbench profile naive --task attention-forward    effbench profile ivf --knob leaves=16 --size smoke --json
    """
    from .commands import profile as profiles
    from .publish import operators

    options = profiles.Options(
        method, task, case, data, size, device, threads, 0, tuple(knob or ()), tuple(param or ()), budget, out
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


comparing.add(app)


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List data sets with licence, size and state.

    Example: effbench data list --json
    """
    from .data import commands

    rows = commands.listing()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else "-"
        typer.echo(f"{row['name']:<16} {row['state']:<8} {size:>9}  {row['licence']}\n{'':16} {row['title']}")


@data_app.command("fetch")
def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none means all.")] = None, as_json: Json = False
) -> None:
    """Fetch data sets into the cache; every byte is checked against its sha256.

    Example: effbench data fetch fashion-mnist
    """
    from .data import commands

    rows = commands.fetch(names or (), progress=None if as_json else _download_line)
    _data_rows(rows, as_json)


def _download_line(text: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        share = f" {done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else ""
        sys.stderr.write(f"\r{text}{share}\033[K" + ("\n" if total and done >= total else ""))
    elif not done:
        sys.stderr.write(f"{text}\n")


def _data_rows(rows: list[dict], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            typer.echo("  ".join(str(row[key]) for key in ("name", "state", "path", "error") if row.get(key)))
    if any(row.get("state") not in ("here", None) for row in rows):
        raise typer.Exit(1)


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none means all.")] = None, as_json: Json = False
) -> None:
    """Check the cached files against their sha256.

    Example: effbench data verify
    """
    from .data import commands

    _data_rows(commands.verify(names or ()), as_json)


@data_app.command("pack")
def data_pack(
    file: Annotated[Path, typer.Argument(help="The .tar to write.")], names: Annotated[list[str] | None, typer.Argument()] = None
) -> None:
    """Pack cached data sets into one file for a machine without a network.

    Example: effbench data pack data.tar fashion-mnist
    """
    from .data import commands

    typer.echo(json.dumps(commands.pack(names or (), file)))


@data_app.command("unpack")
def data_unpack(file: Annotated[Path, typer.Argument(help="A file that `data pack` wrote.")]) -> None:
    """Unpack data sets into the cache, checking names, sizes and sha256.

    Example: effbench data unpack data.tar
    """
    from .data import commands

    typer.echo(json.dumps(commands.unpack(file)))


@data_app.command("path")
def data_path(name: Annotated[str, typer.Argument(help="A data set; none prints the cache folder.")] = "") -> None:
    """Print where a data set lies.

    Example: effbench data path fashion-mnist
    """
    from .data import commands

    typer.echo(commands.path(name))


@results_app.command("add")
def results_add(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option(help="The results folder; default results/ of the checkout.")] = None,
) -> None:
    """Add the records of a run to the committed results, by machine. Nothing is edited; adding twice changes nothing.

    Example: effbench results add runs/smoke
    """
    from .study.results import add

    for line in add(folder, to):
        typer.echo(line)


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
