"""Arrays of a data set, converted once and kept beside the raw files as .npy, with the sha256 of each.

Reading a digest-checked .npy takes a tenth of the time that unpacking the raw file takes, and every trial's process loads anew.
A folder that cannot be written is no obstacle: then the arrays are made from the raw files each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from . import catalog
from .cache import lock, sha256_of
from .catalog import DataSet

MANIFEST = "arrays.json"
FORMAT = 1
MOST_MANIFEST = 1 << 20

_checked: set[tuple[str, int, int]] = set()


def key_of(dataset: DataSet) -> str:
    """16 hex digits over what determines the arrays: the raw files or the sets of which they are made, the version, this format."""
    parts = [FORMAT, dataset.name, dataset.version, [file.sha256 for file in dataset.files]]
    if dataset.of:
        parts.append([key_of(catalog.CATALOG[name]) for name in dataset.of])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def folder_of(dataset: DataSet, folder: Path) -> Path:
    return folder / f"arrays-{key_of(dataset)}"


def read(dataset: DataSet, folder: Path, *, mmap: bool = False) -> dict[str, Any] | None:
    """The kept arrays, or None where there are none or any of them is not what was written."""
    import numpy as np

    home = folder_of(dataset, folder)
    told = digests(dataset, folder)
    try:
        if not told or not all(_intact(home / f"{name}.npy", told[name]) for name in told):
            return None
        # The manifest's order is the loader's.
        return {name: np.load(home / f"{name}.npy", mmap_mode="r" if mmap else None, allow_pickle=False) for name in told}
    except (OSError, ValueError, EOFError):
        return None


def whole(dataset: DataSet, folder: Path) -> bool:
    """Whether every kept array is what was written."""
    home, told = folder_of(dataset, folder), digests(dataset, folder)
    try:
        return bool(told) and all(_intact(home / f"{name}.npy", told[name]) for name in told)
    except OSError:
        return False


def digests(dataset: DataSet, folder: Path) -> dict[str, str]:
    """sha256 of each kept .npy by name; empty where nothing is kept, or the manifest is none."""
    home = folder_of(dataset, folder)
    try:
        manifest = home / MANIFEST
        if manifest.stat().st_size > MOST_MANIFEST:
            return {}
        told = json.loads(manifest.read_text())["arrays"]
        if not all(name.isidentifier() and isinstance(sha256, str) for name, sha256 in told.items()):
            return {}
        if dataset.made and set(told) != set(dataset.made):
            return {}
        return told
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError):
        return {}


def _intact(path: Path, sha256: str) -> bool:
    """Hashed once per process and version of the file: a process that loads twice pays once."""
    stat = path.stat()
    seen = (str(path), stat.st_size, stat.st_mtime_ns)
    if seen in _checked:
        return True
    if sha256_of(path) != sha256:
        return False
    _checked.add(seen)
    return True


def write(dataset: DataSet, folder: Path, arrays: dict[str, Any]) -> bool:
    """Keep the arrays; False where the folder cannot be written."""
    try:
        with lock(dataset.name):
            if not whole(dataset, folder):  # else another process was faster
                put(dataset, folder, arrays)
        return True
    except OSError:
        return False


def put(dataset: DataSet, folder: Path, arrays: dict[str, Any]) -> None:
    """Write all arrays and their manifest in one step. The caller holds the lock."""
    import numpy as np

    home = folder_of(dataset, folder)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".arrays-", dir=folder))
    try:
        told = {}
        for name, array in arrays.items():
            np.save(scratch / f"{name}.npy", array, allow_pickle=False)
            told[name] = sha256_of(scratch / f"{name}.npy")
        (scratch / MANIFEST).write_text(json.dumps({"data": dataset.name, "arrays": told}, indent=1))
        scratch.chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        os.rename(scratch, home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
