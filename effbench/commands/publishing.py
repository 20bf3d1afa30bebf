"""The commands that turn records into pages, tables, figures and verdicts, and that take in other people's records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..api.errors import EffbenchError
from .options import Json, directions


def add(app: typer.Typer) -> None:
    for command in (publish, table, plot, validate, merge, claims):
        app.command()(command)


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
    from ..publish.site.build import publish as build

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
    from ..publish import groups, paper
    from ..study.merge import gather, joined

    runs, problems = gather(paths)
    for problem in problems[:20]:
        typer.echo(f"problem: {problem}", err=True)
    return paper.narrowed(paper.choose(groups.groups(joined(runs), better=directions()), **wanted), case)


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
    from ..publish import paper

    group = one_group(paths, case, task=task, data=data, size=size, device=device, machine=machine)
    text = paper.table_text(group, form, columns=column or ())
    if out:
        out.write_text(text, encoding="utf-8")
    else:
        typer.echo(text, nl=False)


def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Folders or files of records.")],
    out: Annotated[Path, typer.Option(help="The file: .svg, .pdf, .png (these need the extra 'figures'), or plotly's .json.")],
    kind: Annotated[str, typer.Option(help="front, ratio, scaling or curve.")] = "front",
    x: Annotated[str, typer.Option(help="Reading across, of a front.")] = "serve.latency",
    y: Annotated[str, typer.Option(help="Reading upwards, of a front.")] = "quality.recall@10",
    panel: Annotated[
        int,
        typer.Option(min=1, help="Of figures side by side this one: scaling has seconds and FLOPs, a curve steps, FLOPs and time."),
    ] = 1,
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
    from ..publish import paper

    group = one_group(paths, case, task=task, data=data, size=size, device=device, machine=machine)
    typer.echo(paper.draw(paper.figure(group, kind, x=x, y=y), out, panel=panel))


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records files, or folders of them.")],
    as_json: Json = False,
) -> None:
    """Check records that someone else made: schema, units, plausible numbers, sources against their commit, replay.

    Example: effbench validate results/their-machine

    Exit codes: 0 nothing wrong; 1 errors.
    """
    from ..study import validate as study

    count, findings = study.validate(files)
    if as_json:
        typer.echo(json.dumps({"records": count, "findings": [finding.__dict__ for finding in findings]}, indent=1))
    else:
        typer.echo(study.text(count, findings))
    raise typer.Exit(1 if any(finding.level == study.ERROR for finding in findings) else 0)


def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Records files, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the union; may be one of the given.")],
) -> None:
    """Put records of several places into one folder. Order does not matter, and merging twice changes nothing.

    Example: effbench merge runs/a runs/b --out runs/both
    """
    from ..study.merge import merge as union

    loaded, problems = union(files, out)
    for problem in problems[:50]:
        typer.echo(f"problem: {problem}", err=True)
    typer.echo(f"{out}: {len(loaded.records)} records of {len(loaded.environments)} machines")
    raise typer.Exit(1 if problems else 0)


def claims(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Run folders or records files; none means the committed results.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="text, or markdown: one table.")] = "text",
    as_json: Json = False,
) -> None:
    """Say which claims of papers the records reproduce, and which not.

    Examples:  effbench claims    effbench claims runs/quick    effbench claims results --format markdown
    """
    from ..plan.registry import Registry
    from ..study import claims as study
    from ..study import records, results

    if form not in ("text", "markdown"):
        raise EffbenchError(
            f"--format: no format '{form}'", where="effbench claims", remedy="Choose text or markdown; --json prints JSON."
        )
    # Run folders hold a records.jsonl, a results folder files by machine: both may be named.
    runs = {path for path in paths or () if not path.is_dir() or any(path.rglob("records.jsonl"))}
    found = [
        file for path in paths or () for file in ([path] if path in runs else results.files(path) or [path])
    ] or results.files()
    if not found:
        raise EffbenchError(
            "there are no committed results", where="effbench claims", remedy="Name a run folder: effbench claims runs/quick."
        )
    loaded, registry = records.read(found), Registry.read()
    ledger = study.verdicts(loaded.records, registry, loaded.environments, study.fairness(registry))
    typer.echo(
        json.dumps(study.plain(ledger), indent=1) if as_json else (study.markdown if form == "markdown" else study.text)(ledger)
    )
