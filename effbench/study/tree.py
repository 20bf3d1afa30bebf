"""The digest of the sources of a commit, from git's own store: what `tree` in a record of that commit must be."""

from __future__ import annotations

import hashlib
import re
import subprocess
from functools import cache
from pathlib import Path, PurePosixPath

HEX = re.compile(r"[0-9a-f]{7,64}")
FOLDERS = ("effbench", "implementations", "suites")
SUFFIXES = {".py", ".toml", ".html", ".css", ".js", ".json"}
LIMIT_S = 30


@cache
def digest_at(commit: str, root: Path | None = None) -> str | None:
    """16 hex digits, made as a run makes them; None where this is no checkout or it lacks the commit."""
    root = root or Path(__file__).resolve().parents[2]
    if not HEX.fullmatch(commit) or not (root / ".git").exists():
        return None
    listed = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit, *FOLDERS)
    if listed is None:
        return None
    entries = []
    for line in listed.decode("utf-8", "surrogateescape").split("\0"):
        meta, _, name = line.partition("\t")
        path = PurePosixPath(name)
        if name and meta.split()[1] == "blob" and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            entries.append((path, meta.split()[2]))
    blobs = _blobs(root, [blob for _, blob in entries])
    if blobs is None:
        return None
    total = hashlib.sha256()
    for path, blob in sorted(entries, key=lambda entry: entry[0].parts):
        total.update(f"{path.as_posix()}\0".encode())
        total.update(hashlib.sha256(blobs[blob]).digest())
    return total.hexdigest()[:16]


def _blobs(root: Path, names: list[str]) -> dict[str, bytes] | None:
    out = _git(root, "cat-file", "--batch", given=("\n".join(names) + "\n").encode())
    if out is None:
        return None
    found, place = {}, 0
    for name in names:
        end = out.index(b"\n", place)
        size = int(out[place:end].split()[2])
        found[name] = out[end + 1 : end + 1 + size]
        place = end + 2 + size
    return found


def _git(root: Path, *arguments: str, given: bytes | None = None) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], input=given, capture_output=True, timeout=LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
