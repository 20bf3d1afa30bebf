"""The cache folder: where it is, whether a file in it is what it must be, and one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..api.errors import DataError
from .catalog import DataSet, File

Progress = Callable[[str, int, int], None]


def cache_folder() -> Path:
    """EFFBENCH_DATA, else XDG_CACHE_HOME/effbench/data, else ~/.cache/effbench/data. It need not exist yet."""
    named = os.environ.get("EFFBENCH_DATA")
    if named:
        return Path(named).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path there is invalid and must be ignored.
    root = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
    return root / "effbench" / "data"


def roofline_folder() -> Path:
    """Where the measured roofs of this machine lie, beside the data sets."""
    return cache_folder().parent / "roofline"


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fault(file: File, path: Path) -> str:
    """What is wrong with `path` as a copy of `file`: "" when it is one of the pinned wrappers, byte for byte."""
    try:
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size not in file.wrappers.values():
            return f"has {size} bytes, expected {file.bytes}"
        found = sha256_of(path)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return "" if file.wrappers.get(found) == size else f"has sha256 {found[:16]}..., expected {file.sha256[:16]}..."


def state_of(dataset: DataSet, folder: Path) -> str:
    """ "here", "missing" (at least one file) or "damaged" (a file is there and is not what it must be)."""
    faults = [fault(file, folder / file.name) for file in dataset.files]
    if any(text and text != "is missing" for text in faults):
        return "damaged"
    return "missing" if any(faults) else "here"


@contextlib.contextmanager
def lock(name: str, *, wait: float = 3600.0, progress: Progress | None = None) -> Iterator[None]:
    """Hold the data set `name` of the cache against other processes and threads; the lock dies with its holder."""
    import fcntl

    path = cache_folder() / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline, told = time.monotonic() + wait, False
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise DataError(
                        f"another process has held the data set '{name}' for more than {wait:g} s",
                        where=str(path),
                        remedy="Wait for it or end it, then try again.",
                    ) from None
                if progress and not told:
                    progress(f"{name}: another process is at it; waiting", 0, 0)
                    told = True
                time.sleep(0.1)
        yield  # closing the file frees the lock


def place(source: Path, target: Path) -> None:
    """Move a checked file into the cache in one step: readers see the old file or the whole new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb+") as stream:
        os.fsync(stream.fileno())
    source.chmod(0o644)
    os.replace(source, target)
