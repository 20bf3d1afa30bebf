"""Records as pyperf's JSON (format 1.0), so that `pyperf stats`, `hist` and `compare_to` read them. pyperf itself is not needed.

One benchmark per (task, method, settings, case); one run per record, since a record is one worker process: its samples are the
run's values, its first call the warm-up. Settings measured on several seeds give several runs. pyperf's own comparison pools the
values of all runs; `effbench compare` does not.
"""

from __future__ import annotations

from typing import Any

from ..api.errors import RecordError
from .records import Loaded

VERSION = "1.0"


def suite(loaded: Loaded) -> dict[str, Any]:
    """The whole document. RecordError where no benchmark has two values."""
    runs: dict[str, list[dict]] = {}
    for record in loaded.records:
        if record["role"] == "measure" and record["status"] in ("ok", "unstable"):
            for metric, found in times(record):
                run = {**found, "metadata": metadata(record, loaded.environments.get(record["environment"], {}))}
                runs.setdefault(name(record, metric), []).append(run)
    # pyperf needs two values to say anything: a build that was measured once is left out.
    runs = {label: items for label, items in runs.items() if sum(len(item["values"]) for item in items) > 1}
    if not runs:
        raise RecordError("no record holds two times of one benchmark", remedy="Export a run in which something was measured.")
    return {
        "version": VERSION,
        "metadata": {"unit": "second"},
        "benchmarks": [{"metadata": {"name": label}, "runs": items} for label, items in runs.items()],
    }


def name(record: dict, metric: str) -> str:
    """Unique within a run folder, the same from run to run."""
    inner = ", ".join(f"{key}={value}" for key, value in [*record["params"].items(), *record["knobs"].items()])
    budget = ", ".join(f"{key}={value}" for key, value in record["budget"].items())
    where = f" ({record['device']})" if record["device"] != "cpu" else ""
    parts = [f"{record['task']}/{record['method']}", f"({inner})" if inner else "", f" {record['case']}" if record["case"] else ""]
    return "".join([*parts, f" on {record['data']}", f" with {budget}" if budget else "", where, f" {metric}"])


def times(record: dict):
    """(metric, {"values", "warmups"}) of a record; values in seconds per call."""
    readings = record["readings"]
    values = record.get("samples", {}).get("serve.latency") or value_of(readings, "serve.latency")
    if values:
        first = value_of(readings, "serve.first_call")
        yield "serve.latency", {"values": values, **({"warmups": [[1, first[0]]]} if first else {})}
    elif built := value_of(readings, "build.time"):
        yield "build.time", {"values": built}


def value_of(readings: dict, metric: str) -> list[float]:
    value = readings.get(metric, {}).get("value")
    return [value] if value is not None and value > 0 else []


def metadata(record: dict, machine: dict) -> dict[str, Any]:
    """What pyperf knows a name for, and where the record came from."""
    found = {
        "loops": 1, "date": record["time"].replace("T", " ").removesuffix("Z"), "cpu_model_name": machine.get("cpu"),
        "cpu_count": machine.get("cores"), "python_version": machine.get("python"), "platform": machine.get("os"),
        "effbench_commit": record["commit"], "effbench_seed": str(record["seed"]), "effbench_status": record["status"],
        "effbench_environment": record["environment"],
    }  # fmt: skip
    return {key: value for key, value in found.items() if value not in (None, "")}
