"""The commands that compare and that hand records to other tools; part of the command line in `cli.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..api.errors import EffbenchError
from .options import Json


def add(app: typer.Typer) -> None:
    for command in (compare, export):
        app.command()(command)
    app.command("import")(import_)


def compare(
    targets: Annotated[list[str], typer.Argument(metavar="BASE..HEAD | RUN_A RUN_B", help="Two commits, or two finished runs.")],
    suite: Annotated[str, typer.Option(help="Name of a suite, or path of a .toml file.")] = "smoke",
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; may be repeated.")] = None,
    since: Annotated[str, typer.Option(help="Only methods whose content key differs between this commit and HEAD.")] = "",
    unchanged: Annotated[
        bool, typer.Option("--unchanged", help="Also measure benchmarks whose files, settings and data are the same in both.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precise: Annotated[
        bool, typer.Option("--precise", help="30 process pairs and 1 % instead of 10 and 2 % (cuda: 15 instead of 5).")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 where something is unclear.")] = False,
    across: Annotated[bool, typer.Option("--across", help="Stored runs: compare unlike machines or data all the same.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Also list what is the same.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Also write markdown for a pull request to this file.")] = None,
    repository: Annotated[Path | None, typer.Option(help="The repository; default the one around the current folder.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a change made faster, slower, larger or wrong: two commits, measured side by side in fresh processes.

    Examples:  effbench compare main..HEAD    effbench compare main...HEAD --since main    effbench compare runs/a runs/b

    Exit codes: 0 no regression; 1 a regression; 2 nothing was measured, or a mistake in the command; 3 unclear, with --strict.
    """
    from ..publish import verdicts

    if len(targets) == 2:
        from ..study import stored

        found = stored.compare(Path(targets[0]), Path(targets[1]), across=across, strict=strict, better=stored.directions())
    elif len(targets) == 1:
        from . import gate

        options = gate.Options(
            targets[0], suite, tuple(task or ()), tuple(method or ()), since=since, unchanged=unchanged, precise=precise, strict=strict,
            device=device, repository=repository, quiet=quiet or as_json,
        )  # fmt: skip
        found = gate.compare(options)
    else:
        raise EffbenchError(f"{len(targets)} things to compare", where="effbench compare", remedy="Give BASE..HEAD, or two runs.")
    if markdown:
        markdown.write_text(verdicts.markdown(found), encoding="utf-8")
    typer.echo(json.dumps(found.data(), indent=1, allow_nan=False) if as_json else verdicts.text(found, every=every), nl=as_json)
    raise typer.Exit(found.code)


def export(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders or records files.")],
    pyperf: Annotated[Path, typer.Option(help="Write pyperf's JSON to this file.")],
) -> None:
    """Write the times of finished runs for another tool.

    Examples:  effbench export runs/quick --pyperf quick.json    python -m pyperf stats quick.json
    """
    from ..study import pyperf_export, records

    made = pyperf_export.suite(records.read(run_folders))
    pyperf.write_text(json.dumps(made), encoding="utf-8")
    typer.echo(f"{pyperf}: {len(made['benchmarks'])} benchmarks")


def import_(
    file: Annotated[Path, typer.Argument(help="What `pytest --benchmark-json` wrote.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
) -> None:
    """Read the JSON of pytest-benchmark as records, in a run folder of their own.

    Example: effbench import bench.json --out runs/kernels
    """
    from ..study import pytest_import

    typer.echo(f"{out}: {pytest_import.read(file, out)} records")
