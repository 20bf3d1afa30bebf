"""How large a built method is: bytes of what it saves, and its numbers in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..api.record import reading


def folder_bytes(folder: Path) -> int:
    """Bytes of the files under `folder`, by their length, not by the blocks they occupy. Links are not followed."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())


def saved_size(method) -> dict:
    """Reading `size.bytes`: what `method.save` writes, measured by the method's own `folder_bytes`."""
    if getattr(method, "save", None) is None:
        return reading(None, "B", reason="the method has no save()")
    with tempfile.TemporaryDirectory(prefix="effbench-size-") as folder:
        method.save(Path(folder))
        written = int(method.folder_bytes(Path(folder)))
    if written <= 0:
        return reading(None, "B", reason="save() wrote nothing")
    return reading(written, "B", how="files that save() wrote")


def parameter_count(method) -> dict:
    """Reading `size.parameters`."""
    number = method.parameters()
    if number is None:
        return reading(None, "1", reason="the word parameter has no meaning for this method")
    return reading(int(number), "1", how="counted by the method")
