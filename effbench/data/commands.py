"""What stands behind `effbench data list | fetch | verify | pack | unpack | path`: plain data in, plain data out, no printing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..api.errors import DataError
from . import registry
from .cache import Progress, cache_folder


def listing() -> list[dict[str, Any]]:
    """One row a data set: name, title, licence, source, bytes (to fetch or to compute; 0 for a Python package's), state, path (or "")."""
    rows = []
    for name in registry.names():
        dataset = registry.get(name)
        rows.append(
            {
                "name": name,
                "title": dataset.title,
                "licence": dataset.licence,
                "source": dataset.source,
                "bytes": dataset.bytes,
                "state": registry.state(name),
                "path": str(registry.path(name)) if not dataset.needs_package else "",
            }
        )
    return rows


def chosen(names: Sequence[str]) -> list[str]:
    """The data sets that a command line names, each once; none named means all. DataError for one that does not exist."""
    return [registry.get(name).name for name in dict.fromkeys(names)] or registry.names()


def fetch(names: Sequence[str] = (), progress: Progress | None = None) -> list[dict[str, Any]]:
    """Fetch them; one row each: name, state ("here" or "failed"), path, error (text). One failure does not stop the others."""
    rows = []
    for name in chosen(names):
        try:
            folder = registry.fetch(name, progress)
            rows.append({"name": name, "state": "here", "path": str(folder or ""), "error": ""})
        except DataError as error:
            rows.append({"name": name, "state": "failed", "path": "", "error": str(error)})
    return rows


def verify(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of `registry.verify` with the set's name. The command fails when any row of a named set is not "ok"."""
    return [{"name": name, **row} for name in chosen(names) for row in registry.verify(name)]


def pack(names: Sequence[str], file: str | Path) -> dict[str, Any]:
    """Without names: all that are here. file, bytes, names."""
    here = [name for name in chosen(names) if not registry.get(name).needs_package and (names or registry.state(name) == "here")]
    size = registry.pack(here, Path(file))
    return {"file": str(file), "bytes": size, "names": here}


def unpack(file: str | Path) -> dict[str, Any]:
    return {"file": str(file), "names": registry.unpack(Path(file)), "path": str(cache_folder())}


def path(name: str = "") -> str:
    """The folder of one data set, or of the cache."""
    return str(registry.path(name) if name else cache_folder())
