"""Ask for a data set by name: is it here, fetch it, check it, load it. Every byte that is used was held against the catalog."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..api.errors import DataError, suggest
from . import catalog, making, store
from .cache import Progress, cache_folder, fault, lock, place, sha256_of, state_of
from .catalog import DataSet, File, size_text


def names() -> list[str]:
    return sorted(catalog.CATALOG)


def get(name: str) -> DataSet:
    if name not in catalog.CATALOG:
        raise DataError(f"there is no data set '{name}'", where="effbench data", remedy=suggest(name, catalog.CATALOG))
    return catalog.CATALOG[name]


def path(name: str) -> Path:
    """The folder of the raw files in the cache, whether it exists or not. DataError for a set that has no files."""
    dataset = get(name)
    if not dataset.files and not dataset.made:
        raise DataError(
            f"the data set '{name}' has no files of its own",
            where=name,
            remedy=f"It is part of {dataset.needs_package}; just load it.",
        )
    return cache_folder() / name


def state(name: str) -> str:
    """ "here", "missing" or "damaged"; every file is hashed (0.1 s for Fashion-MNIST)."""
    dataset = get(name)
    if dataset.made:
        if store.whole(dataset, path(name)):
            return "here"
        return "damaged" if store.folder_of(dataset, path(name)).exists() else "missing"
    if dataset.files:
        return state_of(dataset, path(name))
    return "here" if _installed(dataset) else "missing"


def inputs(*wanted: str) -> dict[str, str]:
    """sha256 of the downloads of these data sets, as "name/file": sha256: what a data digest takes in."""
    own = {f"{name}/{file.name}": file.sha256 for name in wanted for file in get(name).files}
    return own | {key: sha256 for name in wanted if get(name).of for key, sha256 in inputs(*get(name).of).items()}


def verify(name: str) -> list[dict[str, Any]]:
    """One row a file: file, bytes, sha256 (expected), state ("ok", "missing", "damaged") and what is wrong."""
    dataset, rows = get(name), []
    if dataset.made:
        return _verify_made(dataset)
    for file in dataset.files:
        wrong = fault(file, path(name) / file.name)
        found = "ok" if not wrong else "missing" if wrong == "is missing" else "damaged"
        rows.append({"file": file.name, "bytes": file.bytes, "sha256": file.sha256, "state": found, "wrong": wrong})
    return rows


def _verify_made(dataset: DataSet) -> list[dict[str, Any]]:
    """The kept files against what was written here, and the arrays against the catalog."""
    folder = path(dataset.name)
    told, home = store.digests(dataset, folder), store.folder_of(dataset, folder)
    arrays = store.read(dataset, folder, mmap=True)
    wrong = making.faults(dataset, arrays) if arrays is not None else []
    rows = []
    for name, array in dataset.made.items():
        file = home / f"{name}.npy"
        said = next((text for text in wrong if text.startswith(name)), "")
        if not file.is_file():
            said = "is missing"
        elif not said and (name not in told or sha256_of(file) != told[name]):
            said = "is not what was written here"
        found = "ok" if not said else "missing" if said == "is missing" else "damaged"
        rows.append({"file": file.name, "bytes": array.bytes, "sha256": told.get(name, ""), "state": found, "wrong": said})
    return rows


def fetch(name: str, progress: Progress | None = None) -> Path | None:
    """Bring the raw files into the cache, from the first sources that have the right bytes; the folder (None: no files).

    Files that are already right are kept, damaged ones replaced. Two processes do not fetch one set at once: the second
    waits and finds it there. `progress(text, done bytes, total bytes)` is called now and then; total 0 means unknown.
    """
    dataset = get(name)
    if not dataset.files and not dataset.made:
        _need_package(dataset)
        return None
    folder = path(name)
    if state(name) == "here":
        return folder
    try:
        if dataset.made:
            making.make(dataset, folder, _inputs_of(dataset, progress), progress)
            return folder
        with lock(name, progress=progress):
            wanted = [file for file in dataset.files if fault(file, folder / file.name)]
            if wanted:
                _bring(dataset, wanted, folder, progress)
    except OSError as error:
        raise DataError(
            f"the cache cannot be written ({error.strerror or error})",
            where=str(folder),
            remedy="Free some space, or set EFFBENCH_DATA to a folder that you may write.",
        ) from error
    return folder


def _inputs_of(dataset: DataSet, progress: Progress | None) -> dict[str, Path]:
    """The folders of the sets that a computed one is made of, fetched."""
    try:
        return {part: fetch(part, progress) for part in dataset.of}
    except DataError as error:
        remedy = f"{error.remedy} An archive of '{dataset.name}' itself (`effbench data pack`) needs nothing else."
        raise DataError(f"'{dataset.name}' is computed from it: {error.what}", where=error.where, remedy=remedy) from error


def _bring(dataset: DataSet, wanted: Sequence[File], folder: Path, progress: Progress | None) -> None:
    from .sources import sources

    total = sum(file.bytes for file in wanted)
    if progress:
        progress(f"{dataset.name}: {size_text(total)} to fetch", 0, total)
    folder.mkdir(parents=True, exist_ok=True)
    attempts = []
    for label, source in sources(dataset):
        # Beside the target, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            staging = Path(scratch)
            try:
                source(wanted, staging, progress)
                said = ""
            except DataError as error:
                said = error.what
            except OSError as error:
                said = error.strerror or str(error)
            for file in wanted:
                wrong = fault(file, staging / file.name)
                if not wrong:
                    place(staging / file.name, folder / file.name)
                elif not said or wrong != "is missing":
                    said = f"{said + '; ' if said else ''}{file.name} {wrong}"
        wanted = [file for file in wanted if fault(file, folder / file.name)]
        if not wanted:
            if progress:
                progress(f"{dataset.name}: here, checked", total, total)
            return
        attempts.append(f"{label}: {said or 'incomplete'}")
    tried = "".join(f"\n  - {attempt}" for attempt in attempts)
    package = f"the Debian package {dataset.package}" if dataset.package else f"the Python package {dataset.wheel}"
    package = f"Install {package}, " if dataset.package or dataset.wheel else "Get on line, "
    raise DataError(
        f"'{dataset.name}' ({size_text(total)}) could not be fetched; tried:{tried or ' nothing, it has no sources'}\n",
        where=str(folder),
        remedy=f"{package}or set EFFBENCH_MIRROR to an address or folder that holds {dataset.name}/{wanted[0].name}, "
        f"or run `effbench data pack` on a machine that has it and `effbench data unpack` here.",
    )


def load(name: str, *, mmap: bool = False) -> dict[str, Any]:
    """The arrays of a data set that is here (docs: loaders.py). DataError where it is missing or damaged; never fetches.

    The arrays are the caller's own and writable, unless `mmap`: then read-only maps of the cache, shared between processes.
    """
    dataset = get(name)
    if not dataset.files and not dataset.made:
        _need_package(dataset)
        return dataset.loader(cache_folder() / name)
    folder = path(name)
    kept = store.read(dataset, folder, mmap=mmap) if dataset.kept else None
    if kept is not None:
        return kept
    found = state(name)
    if found != "here" or dataset.made:
        wrong = [f"{file.name} {text}" for file in dataset.files if (text := fault(file, folder / file.name))]
        wrong = wrong[0] if wrong else f"it is computed from {' and '.join(dataset.of)}: {dataset.cost}"
        raise DataError(
            f"the data set '{name}' is {found} ({wrong})", where=str(folder), remedy=f"Run `effbench data fetch {name}`."
        )
    arrays = dataset.loader(folder)
    if dataset.kept and store.write(dataset, folder, arrays) and mmap:
        return store.read(dataset, folder, mmap=True) or arrays
    return arrays


def pack(wanted: Sequence[str], file: Path) -> int:
    from .archive import pack

    return pack(wanted, file)


def unpack(file: Path) -> list[str]:
    from .archive import unpack

    return unpack(file)


def remove(name: str) -> None:
    """Delete the set from the cache, raw files and arrays."""
    folder = path(name)
    with lock(name):
        shutil.rmtree(folder, ignore_errors=True)


def _installed(dataset: DataSet) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(dataset.needs_package)
    except PackageNotFoundError:
        return False
    return True


def _need_package(dataset: DataSet) -> None:
    if not _installed(dataset):
        raise DataError(
            f"the data set '{dataset.name}' is part of {dataset.needs_package}, which is not installed",
            where=dataset.name,
            remedy=f"Run `pip install {dataset.needs_package}`.",
        )
