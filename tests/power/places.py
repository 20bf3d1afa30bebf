"""Where records of the proof are kept, and under which names."""

from __future__ import annotations

import os
from pathlib import Path

from effbench.measure.host import environment_key, fingerprint


def host(device: str) -> tuple[str, str]:
    """The environment key, and a word for it that means something to a reader."""
    found = fingerprint()
    gpu = found["gpus"][0]["name"] if device != "cpu" and found["gpus"] else ""
    return environment_key(found, 1, device), gpu or f"{found['cpu']} ({found['cores']} cores)"


def target_of(kind: str, disturbed: bool, folder: Path, device: str) -> tuple[Path, str]:
    """The file for new lines, which ends with a whole line, and the host's name."""
    key, on = host(device)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{kind}-{'disturbed' if disturbed else 'quiet'}-{key}.jsonl"
    if target.exists() and target.stat().st_size and not target.read_bytes().endswith(b"\n"):
        with target.open("a", encoding="utf-8") as file:
            file.write("\n")
    return target, on


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "effbench" / "power"
