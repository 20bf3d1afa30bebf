"""The commands of what is kept: `effbench data ...` for data sets, `effbench results ...` for committed records."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .options import Json

data_app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: list, fetch, verify, carry to a machine without a network.\n\nExample: effbench data list",
)
results_app = typer.Typer(no_args_is_help=True, help="Committed reference records.\n\nExample: effbench results add runs/reference")


def add(app: typer.Typer) -> None:
    app.add_typer(data_app, name="data")
    app.add_typer(results_app, name="results")


@data_app.command("list")
def data_list(as_json: Json = False) -> None:
    """List data sets with licence, size and state.

    Example: effbench data list --json
    """
    from ..data import commands

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
    from ..data import commands

    rows = commands.fetch(names or (), progress=None if as_json else _printer())
    _data_rows(rows, as_json)


def _printer() -> Callable[[str, int, int], None]:
    """One line that changes on a terminal; each text once elsewhere."""
    last = ""

    def show(text: str, done: int, total: int) -> None:
        nonlocal last
        if sys.stderr.isatty():
            share = f" {done / 1e6:.1f} of {total / 1e6:.1f} MB" if total else ""
            sys.stderr.write(f"\r{text}{share}\033[K" + ("\n" if total and done >= total else ""))
        elif not done and text != last:
            sys.stderr.write(f"{text}\n")
        last = text

    return show


def _data_rows(rows: list[dict], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            typer.echo("  ".join(str(row[key]) for key in ("name", "state", "path", "error") if row.get(key)))
    if any(row.get("state") not in ("here", "ok", None) for row in rows):
        raise typer.Exit(1)


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; none means all.")] = None, as_json: Json = False
) -> None:
    """Check the cached files against their sha256.

    Example: effbench data verify
    """
    from ..data import commands

    _data_rows(commands.verify(names or ()), as_json)


@data_app.command("pack")
def data_pack(
    file: Annotated[Path, typer.Argument(help="The .tar to write.")], names: Annotated[list[str] | None, typer.Argument()] = None
) -> None:
    """Pack cached data sets into one file for a machine without a network.

    Example: effbench data pack data.tar fashion-mnist
    """
    from ..data import commands

    typer.echo(json.dumps(commands.pack(names or (), file)))


@data_app.command("unpack")
def data_unpack(file: Annotated[Path, typer.Argument(help="A file that `data pack` wrote.")]) -> None:
    """Unpack data sets into the cache, checking names, sizes and sha256.

    Example: effbench data unpack data.tar
    """
    from ..data import commands

    typer.echo(json.dumps(commands.unpack(file)))


@data_app.command("path")
def data_path(name: Annotated[str, typer.Argument(help="A data set; none prints the cache folder.")] = "") -> None:
    """Print where a data set lies.

    Example: effbench data path fashion-mnist
    """
    from ..data import commands

    typer.echo(commands.path(name))


@results_app.command("add")
def results_add(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option(help="The results folder; default results/ of the checkout.")] = None,
) -> None:
    """Add the records of a run to the committed results, by machine. Nothing is edited; adding twice changes nothing.

    Example: effbench results add runs/smoke
    """
    from ..study.results import add

    for line in add(folder, to):
        typer.echo(line)
