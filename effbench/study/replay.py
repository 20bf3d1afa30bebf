"""The command that makes a record again."""

from __future__ import annotations

import re
import shlex

HEX = re.compile(r"[0-9a-f]{7,64}")


def commands(record: dict) -> list[str]:
    """Lines for a shell: the commit, then the run. Names are quoted; the baseline runs along where ratios were taken to it."""
    methods = [record["method"]]
    if record.get("baseline") and record["baseline"] != record["method"]:
        methods.insert(0, record["baseline"])
    parts = ["effbench", "run", record["suite"], "--task", record["task"]]
    for method in methods:
        parts += ["--method", method]
    parts += ["--size", record["size"], "--device", record["device"], "--seeds", str(record["seed"])]
    run = " ".join(_quoted(part) for part in parts)
    commit = record["commit"].removesuffix("-dirty")
    return [f"git checkout {commit}", run] if HEX.fullmatch(commit) else [run]


def remark(record: dict) -> str:
    """Why the commands may not make the same record, or ""."""
    if record["commit"].endswith("-dirty"):
        return f"The measured sources differed from this commit; their digest is {record['tree']}."
    if not HEX.fullmatch(record["commit"]):
        return f"The commit is not known; the digest of the sources is {record['tree']}."
    return ""


def _quoted(part: str) -> str:
    """For a POSIX shell; what cannot be printed is written as $'...' so that a copied line does what it shows."""
    if part.isprintable():
        return shlex.quote(part)
    escaped = "".join(
        c if c.isprintable() and c not in "'\\" else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "replace")) for c in part
    )
    return f"$'{escaped}'"
