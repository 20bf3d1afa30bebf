"""Records arranged for reading: a group is what may stand in one table (one task, data set, size, device and environment).

Several seeds of one arm become one row: the median over the seeds, and as interval the envelope of theirs.
Nothing is decided here; verdicts come from `effbench.study`.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..study.merge import latest
from ..study.records import Loaded
from .format import clean

LOWER_WORDS = {"loss", "perplexity", "error", "regret", "nll", "mse", "mae", "rmse", "bits", "bpc", "bpb", "distance", "wer"}
ORDER = (
    "build.time", "build.flops", "build.peak_memory", "serve.latency", "serve.throughput", "serve.flops", "serve.peak_memory",
    "size.parameters", "size.bytes",
)  # fmt: skip
MACHINE = ("name", "gpu", "gpu_model", "cpu", "cpu_model", "processor", "host")
Directions = Mapping[Any, str]  # "quality.x" or (task, "quality.x") -> "higher" or "lower"
KEYS = ("task", "data", "size", "device", "threads", "environment")
ARM = ("method", "backend", "dtype", "case")


@dataclass(frozen=True, eq=False)
class Row:
    """One arm at one case and one knob setting. `readings` have the fields of a record's reading, plus `seeds`."""

    method: str
    backend: str
    dtype: str
    case: str
    budget: dict[str, Any]
    params: dict[str, Any]
    knobs: dict[str, Any]
    shown: dict[str, Any]  # the settings worth showing: knobs, and params that differ between the method's rows
    status: str
    reason: str
    readings: dict[str, dict]
    ratios: dict[str, dict]  # reading name -> ratio to the baseline, as a reading
    records: tuple[dict, ...]
    baseline: bool

    def value(self, name: str) -> float | None:
        return self.readings.get(name, {}).get("value")

    @property
    def ok(self) -> bool:
        return self.status in ("ok", "unstable")


@dataclass(frozen=True, eq=False)
class Group:
    key: dict[str, Any]  # KEYS -> value
    rows: tuple[Row, ...]
    failed: tuple[dict, ...]  # records without readings to show, with their reasons
    prepared: tuple[dict, ...]
    tuning: tuple[dict, ...]
    baseline: str
    names: tuple[str, ...]  # readings that any row has, in reading order
    better: dict[str, str] = field(default_factory=dict)
    machine: str = ""  # a short name of the environment
    apart: str = ""  # what tells this group from others of the same task and data, e.g. "cuda, workstation"

    @property
    def title(self) -> str:
        return f"{self.key['task']} on {self.key['data']}" + (f", {self.apart}" if self.apart else "")


def groups(loaded: Loaded | Iterable[dict], *, baseline: str | None = None, better: Directions | None = None) -> list[Group]:
    """Groups in order of their key, rows in order of method and settings, whatever the order of the records; of a trial the latest.

    `baseline` replaces the method that records name; ratios that were measured to another one are left out. `better` gives directions
    ("higher" or "lower") that names do not tell, of a quality or of (task, quality); what comes first of a task is shown first.
    """
    records, environments = (loaded.records, loaded.environments) if isinstance(loaded, Loaded) else (tuple(loaded), {})
    divided: dict[str, list[dict]] = {}
    for record in sorted(latest(records), key=canonical):
        divided.setdefault(json.dumps([record[name] for name in KEYS]), []).append(record)
    made = [_group(divided[key], baseline, better or {}, environments) for key in sorted(divided)]
    return [replace(group, apart=_apart(group, made)) for group in made]


def machine(key: str, environments: dict[str, dict]) -> str:
    """A short name of an environment: what it calls itself, the GPU that it measured, its processor, or its key."""
    known, gpus = environments.get(key, {}), environments.get(key, {}).get("gpus")
    if known.get("device") not in (None, "cpu") and isinstance(gpus, list) and gpus and isinstance(gpus[0], dict):
        name, count = gpus[0].get("name"), len(gpus)
        if isinstance(name, str) and name:
            return clean(name if count == 1 else f"{count} x {name}", 80)
    found = (environments.get(key, {}).get(name) for name in MACHINE)
    return next((clean(name, 80) for name in found if isinstance(name, str) and name), clean(key, 80))


def _apart(group: Group, made: list[Group]) -> str:
    alike = [other for other in made if all(other.key[name] == group.key[name] for name in ("task", "data"))]
    differ = [name for name in ("size", "device", "threads", "environment") if len({json.dumps(o.key[name]) for o in alike}) > 1]
    words = {"threads": f"{group.key['threads']} threads", "environment": group.machine}
    return ", ".join(words.get(name, str(group.key[name])) for name in differ)


def canonical(record: dict) -> str:
    return json.dumps(record, sort_keys=True)


def _group(records: list[dict], baseline: str | None, better: Directions, environments: dict[str, dict]) -> Group:
    measured = [record for record in records if record["role"] == "measure"]
    base = baseline or min(((r["seed"], r["baseline"]) for r in measured if r.get("baseline")), default=(0, ""))[1]
    arms: dict[str, list[dict]] = {}
    for record in measured:
        if record["status"] in ("ok", "unstable"):
            arm = [record.get(n, "") for n in ARM] + [record["budget"], record["params"], record["knobs"]]
            arms.setdefault(json.dumps(arm, sort_keys=True), []).append(record)
    varied = _varied(list(arms.values()))
    rows = sorted((_row(arm, base, varied) for arm in arms.values()), key=lambda row: row_order(row, base))
    names = {name for row in rows for name in row.readings}
    task = records[0]["task"]
    own = [key[1] for key in better if isinstance(key, tuple) and key[0] == task]
    return Group(
        key={name: records[0][name] for name in KEYS},
        rows=tuple(rows),
        failed=tuple(r for r in measured if r["status"] not in ("ok", "unstable")),
        prepared=tuple(r for r in records if r["role"] == "prepared"),
        tuning=tuple(r for r in records if r["role"] == "tuning"),
        baseline=base,
        names=tuple(sorted(names, key=lambda name: _reading_order(name, own))),
        better={name: better.get((task, name)) or better.get(name) or direction(name) for name in names},
        machine=machine(records[0]["environment"], environments),
    )


def natural(text: str) -> list:
    """A sort key that puts batch-16 before batch-256; pairs, because numbers and text do not compare."""
    parts = [part for part in re.split(r"([0-9]{1,18})", text) if part]
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


def row_order(row: Row, base: str):
    settings = json.dumps([row.budget, row.params, row.knobs], sort_keys=True)
    return natural(row.case), row.method != base, row.method, natural(settings)


def _reading_order(name: str, qualities: list[str]):
    known = qualities if name.startswith("quality.") else ORDER
    return (not name.startswith("quality."), known.index(name) if name in known else len(known), name)


def direction(name: str) -> str:
    """Which way is better, told by a reading's name; tasks may say otherwise through `better`."""
    if name.startswith("quality."):
        return "lower" if set(re.split(r"[^a-z]+", name.lower())) & LOWER_WORDS else "higher"
    return "higher" if name.startswith(("serve.throughput", "serve.roof")) else "lower"


def _varied(arms: list[list[dict]]) -> dict[str, set[str]]:
    """Params that take more than one value among the arms of a method."""
    seen: dict[tuple[str, str], set[str]] = {}
    for arm in arms:
        for name, value in arm[0]["params"].items():
            seen.setdefault((arm[0]["method"], name), set()).add(json.dumps(value, sort_keys=True))
    varied: dict[str, set[str]] = {}
    for (method, name), values in seen.items():
        if len(values) > 1:
            varied.setdefault(method, set()).add(name)
    return varied


def _row(arm: list[dict], base: str, varied: dict[str, set[str]]) -> Row:
    arm = sorted(arm, key=lambda record: record["seed"])
    first = arm[0]
    names = sorted({name for record in arm for name in record["readings"]})
    shown = {name: value for name, value in first["params"].items() if name in varied.get(first["method"], ())}
    unstable = [record for record in arm if record["status"] == "unstable"]
    return Row(
        method=first["method"], backend=first["backend"], dtype=first.get("dtype", ""), case=first["case"], budget=first["budget"],
        params=first["params"], knobs=first["knobs"], shown=shown | first["knobs"], status="unstable" if unstable else "ok",
        reason="; ".join(sorted({record["reason"] for record in unstable})),
        readings={name: _over_seeds([r["readings"][name] for r in arm if name in r["readings"]]) for name in names},
        ratios=_ratios([record for record in arm if record.get("baseline") == base]), records=tuple(arm), baseline=first["method"] == base,
    )  # fmt: skip


def _over_seeds(readings: Sequence[dict]) -> dict:
    present = [reading for reading in readings if reading["value"] is not None]
    if not present:
        return {**readings[0], "seeds": 0}
    if len(present) == 1:
        return {**present[0], "seeds": 1}
    low = min(reading.get("low", reading["value"]) for reading in present)
    high = max(reading.get("high", reading["value"]) for reading in present)
    value = statistics.median(reading["value"] for reading in present)
    out = {"value": value, "unit": present[0]["unit"], "seeds": len(present)}
    if any("low" in reading or reading["value"] != value for reading in present):
        out |= {"low": low, "high": high}
    ways = sorted({clean(reading["how"]) for reading in present if reading.get("how")})
    missing = len(readings) - len(present)
    how = f"median and envelope of {len(present)} seeds" + (f", {missing} missing" if missing else "")
    return out | {"how": "; ".join([*ways, how])}


def _ratios(arm: list[dict]) -> dict[str, dict]:
    """Ratios to the baseline: readings named "<reading>.ratio", else the median of the samples of that name."""
    found: dict[str, list[dict]] = {}
    for record in arm:
        for name, reading in record["readings"].items():
            if name.endswith(".ratio") and reading["value"] is not None:
                found.setdefault(name[: -len(".ratio")], []).append(reading)
        for name, values in record.get("samples", {}).items():
            if name.endswith(".ratio") and name not in record["readings"] and values:
                found.setdefault(name[: -len(".ratio")], []).append(median_ratio(values))
    return {name: _over_seeds(readings) for name, readings in sorted(found.items())}


def median_ratio(values: Sequence[float]) -> dict:
    """The median with its distribution-free 95 % interval (order statistics); below six values the range."""
    ordered, n = sorted(values), len(values)
    # Normal approximation of the binomial(n, 1/2) quantile: exact to one rank for n >= 6.
    rank = max(0, int((n - 1.96 * n**0.5) / 2) - (1 if n < 20 else 0)) if n >= 6 else 0
    out = {"value": statistics.median(ordered), "unit": "×", "n": n, "how": "per round, within one process: no verdict"}
    return out | {"low": ordered[rank], "high": ordered[n - 1 - rank]}
