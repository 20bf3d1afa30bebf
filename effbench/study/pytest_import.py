"""The JSON of pytest-benchmark as records in a run folder of their own. It was not measured by effbench, and the records say so.

One process, no alternation: such times serve trends. The file is data from outside: parsed strictly, size-capped, never run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..api.errors import RecordError
from ..api.record import MAX_SAMPLES, SCHEMA, check, dumps, reading
from ..measure import MEASURE_VERSION
from ..measure.host import environment_key
from ..stats.interval import median_interval

LIMIT = 256 << 20
HOW = "pytest-benchmark: median of {rounds} rounds in one process"


def read(file: Path, out: Path) -> int:
    """Write records.jsonl and environment.json; the number of records. RecordError where the file is not what it should be."""
    made, machine, key = records(parse(file), str(file))
    if (out / "records.jsonl").exists():
        raise RecordError("there are records already", where=str(out), remedy="Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    (out / "environment.json").write_text(json.dumps({key: machine}, indent=1), encoding="utf-8")
    (out / "records.jsonl").write_text("".join(dumps(record) + "\n" for record in made), encoding="utf-8")
    return len(made)


def parse(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LIMIT:
            raise RecordError(f"exceeds the limit of {LIMIT >> 20} MiB", where=str(file), remedy="Import fewer benchmarks.")
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(
            f"cannot be read as JSON ({error})", where=str(file), remedy="Give what --benchmark-json wrote."
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("benchmarks"), list) or not found["benchmarks"]:
        raise RecordError("no list of benchmarks", where=str(file), remedy="Give what pytest --benchmark-json wrote.")
    return found


def records(found: dict, where: str) -> tuple[list[dict], dict, str]:
    """(records, machine, environment key)."""
    machine = machine_of(found.get("machine_info") or {})
    key = environment_key(machine, 1, "cpu")
    info = found.get("commit_info") or {}
    commit = str(info.get("id") or "unknown") + ("-dirty" if info.get("dirty") else "")
    time = str(found.get("datetime", ""))[:19] + "Z"
    out = []
    for number, item in enumerate(found["benchmarks"]):
        try:
            record = one(item, key, commit, time)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(
                f"benchmark {number} is not one of pytest-benchmark's ({type(error).__name__}: {error})", where=where,
                remedy="Give what pytest --benchmark-json wrote.",
            ) from None  # fmt: skip
        if problems := check(record):
            raise RecordError("; ".join(problems[:3]), where=f"{where}: benchmark {number}", remedy="Is the file complete?")
        out.append(record)
    return out, machine, key


def machine_of(info: dict) -> dict[str, Any]:
    """The facts behind an environment key; host name and user are left out."""
    cpu = info.get("cpu") or {}
    return {
        "cpu": cpu.get("brand_raw") or info.get("processor") or info.get("machine"), "cores": cpu.get("count"),
        "os": info.get("system"), "kernel": info.get("release"), "machine": info.get("machine"),
        "python": info.get("python_version"), "versions": {}, "gpus": [], "threads": 1, "device": "cpu",
    }  # fmt: skip


def one(item: dict, environment: str, commit: str, time: str) -> dict:
    stats, params = item["stats"], item.get("params") or {}
    data = [float(value) for value in stats.get("data", ())]
    low, high = median_interval(data) if len(data) > 5 else (None, None)
    file, _, name = str(item["fullname"]).partition("::")
    step = max(1, -(-len(data) // MAX_SAMPLES))
    how = HOW.format(rounds=int(stats["rounds"]))
    latency = reading(float(stats["median"]), "s", how=how, low=low, high=high, n=int(stats["rounds"]), min=float(stats["min"]))
    return {
        "schema": SCHEMA, "role": "measure", "key": hashlib.sha256(item["fullname"].encode()).hexdigest()[:16],
        "suite": "pytest-benchmark", "area": "imported", "task": item.get("group") or file or "tests", "task_version": 1,
        "method": name or str(item["name"]), "method_version": 1, "backend": "numpy", "data": "none", "size": "quick", "seed": 0,
        "device": "cpu", "threads": 1, "dtype": "", "params": {str(k): plain(v) for k, v in params.items()}, "knobs": {}, "case": "call",
        "budget": {}, "status": "ok", "reason": "", "readings": {"serve.latency": latency}, "samples": {"serve.latency": data[::step]},
        "group": "imported", "environment": environment, "commit": commit, "tree": "", "loaded": "", "data_digest": "",
        "measure_version": MEASURE_VERSION, "time": time, "notes": ["imported from pytest-benchmark, not measured by effbench"],
    }  # fmt: skip


def plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
