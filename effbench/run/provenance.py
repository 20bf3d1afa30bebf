"""Which code made a record: commit, digest of the tree that ran, fingerprint of the machine."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ..plan.origins import beside, own_origin

SUFFIXES = {".py", ".toml", ".html", ".css", ".js", ".json"}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tree_folders() -> dict[str, Path]:
    """The three folders of the tree digest under their logical names, wherever they lie."""
    found = {"effbench": Path(__file__).resolve().parents[1], "implementations": own_origin().folder}
    suites = beside("suites", "effbench_suites")
    return {**found, **({"suites": suites} if suites else {})}


def tree_digest() -> str:
    """Digest of effbench/, implementations/ and suites/: names below the folder and contents; 16 hex digits."""
    total = hashlib.sha256()
    for name, folder in sorted(tree_folders().items()):
        for path in sorted(folder.rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{name}/{path.relative_to(folder).as_posix()}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def commit() -> str:
    """The commit of the checkout, with "-dirty" where the measured folders differ from it; EFFBENCH_COMMIT where there is no git."""
    if os.environ.get("EFFBENCH_COMMIT"):
        return os.environ["EFFBENCH_COMMIT"]
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20)
        state = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--", "effbench", "implementations", "suites"],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if state.stdout.strip() else "")
