"""Schema 1 of a record: one JSON line, one trial at one case and one knob setting. `docs/records.md` shows one.

Records are data: parsed strictly, never evaluated. Lines are at most 4 KB and hold at most 100 raw samples a reading.
"""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import RecordError

SCHEMA = 1
MAX_BYTES = 4096
MAX_SAMPLES = 100
STATUSES = ("ok", "wrong", "skipped", "error", "timeout", "memory", "crash", "unstable", "interrupted")
ROLES = ("measure", "tuning", "prepared")

# field -> (types, required). Empty strings and {} stand for "does not apply".
FIELDS: dict[str, tuple[tuple, bool]] = {
    "schema": ((int,), True),
    "role": ((str,), True),
    "key": ((str,), True),  # content key of the trial: 16 hex digits
    "suite": ((str,), True),
    "area": ((str,), True),
    "task": ((str,), True),
    "task_version": ((int,), True),
    "method": ((str,), True),
    "method_version": ((int,), True),
    "backend": ((str,), True),
    "data": ((str,), True),  # as in a suite: name(arg=value, ...)
    "size": ((str,), True),
    "seed": ((int,), True),
    "device": ((str,), True),  # cpu | cuda | tpu
    "threads": ((int,), True),
    "dtype": ((str,), False),
    "params": ((dict,), True),
    "knobs": ((dict,), True),
    "case": ((str,), True),
    "budget": ((dict,), True),
    "status": ((str,), True),
    "reason": ((str,), True),  # "" only where the status is ok
    "readings": ((dict,), True),  # name -> {value, unit, low, high, n, how} or {value: null, unit, reason}
    "samples": ((dict,), False),  # name -> at most 100 numbers; "<name>.ratio" are per-round ratios to the baseline
    "curve": ((dict,), False),  # column -> list; columns steps, samples, flops, time, and the keys of Task.evaluate
    "tuning": ((dict,), False),  # trials, flops, time, stale: what was spent to choose these params
    "prepared": ((dict,), False),  # digest, time: shared material this trial used
    "group": ((str,), True),  # trials with the same group were timed in the same rounds
    "baseline": ((str,), False),  # the method that per-round ratios are taken to
    "environment": ((str,), True),  # key into environment.json
    "commit": ((str,), True),
    "tree": ((str,), True),  # digest of effbench/ implementations/ suites/
    "loaded": ((str,), True),  # digest of the technique files that the worker loaded
    "data_digest": ((str,), True),
    "measure_version": ((int,), True),
    "time": ((str,), True),  # UTC, when the trial ended
    "notes": ((list,), False),
}
ENDS = ("low", "high", "min", "p90", "p99", "cpu")
# How readings are made that are hardly ever made otherwise: left out where a line has no room for it.
IMPLIED = {
    "build.device_peak_memory": "allocator peak",
    "build.time": "wall clock",
    "serve.device_peak_memory": "allocator peak",
    "serve.flops.counter": "counter",
    "serve.flops.dense": "formula",
    "serve.flops.other": "formula",
    "serve.flops.useful": "formula",
    "serve.throughput": "items / latency",
    "size.bytes": "files written by save",
}
READING_FIELDS = {"value", "unit", "low", "high", "n", "how", "reason", "min", "p90", "p99", "cpu"}


def reading(value: float | None, unit: str, *, how: str = "", reason: str = "", **extra) -> dict[str, Any]:
    """A reading; a missing one must say why. Numbers that are not finite become missing."""
    if value is not None and not math.isfinite(value):
        value, reason = None, reason or f"not finite ({value})"
    if value is None:
        return {"value": None, "unit": unit, "reason": reason or "not measured"}
    out: dict[str, Any] = {"value": short(value), "unit": unit}
    for name in ("low", "high", "min", "p90", "p99", "cpu"):
        if extra.get(name) is not None and math.isfinite(extra[name]):
            out[name] = short(extra[name])
    if extra.get("n") is not None:
        out["n"] = int(extra["n"])
    if how:
        out["how"] = how
    return out


def short(value: float) -> float | int:
    """Six significant digits: more than any of our numbers carries, and it keeps lines below their limit."""
    if isinstance(value, bool) or (float(value).is_integer() and abs(value) < 2**53):
        return int(value)
    return float(f"{value:.6g}")


def identity(record: dict) -> tuple:
    """What makes two records the same measurement: they may not both stand in one folder."""
    knobs = json.dumps(record["knobs"], sort_keys=True)
    return (record["role"], record["key"], record["case"], knobs, record["environment"])


def dumps(record: dict) -> str:
    """The record as one line, thinned to the limits: samples, the curve, the reason, digits of intervals, then the rest of these.

    No reading is lost. RecordError where all of that is not enough.
    """
    record, rungs = dict(record), [_rounded, _implied]
    samples = {name: [float(f"{v:.4g}") for v in values[:MAX_SAMPLES]] for name, values in record.get("samples", {}).items()}
    record["samples"] = samples
    for _ in range(16):
        line = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        if len(line.encode()) <= MAX_BYTES:
            return line
        if any(len(values) > 8 for values in samples.values()):
            samples = {name: values[::2] if len(values) > 8 else values for name, values in samples.items()}
            record["samples"] = samples
        elif any(len(column) > 8 for column in record.get("curve", {}).values()):
            record["curve"] = _thinned(record["curve"])
        elif len(record["reason"]) > 300:
            record["reason"] = record["reason"][:297] + "..."
        elif rungs:
            shorter = rungs.pop(0)
            record["readings"] = {name: shorter(name, one) for name, one in record["readings"].items()}
        elif samples:
            record["samples"] = samples = {}
        elif any(len(column) > 4 for column in record.get("curve", {}).values()):
            record["curve"] = _thinned(record["curve"])
        else:
            break
    raise RecordError(
        f"a record of {len(line.encode())} bytes exceeds the limit of {MAX_BYTES}",
        where=f"{record['task']}/{record['method']}",
        remedy="Shorten the names or the number of params, metrics and curve columns.",
    )


def _thinned(curve: dict) -> dict:
    """Every second row of a curve, and always the last one."""
    return {name: column[::2] + column[-1:] * (len(column) % 2 == 0) for name, column in curve.items()}


def _rounded(name: str, one: dict) -> dict:
    """A reading whose interval has four significant digits, outwards; what a quality is a mean of is said by its task."""
    ends = {key: _outwards(one[key], key in ("high", "p90", "p99")) for key in ENDS if one.get(key) is not None}
    dropped = ("how",) if name.startswith("quality.") and one.get("how", "").startswith("mean over") else ()
    return {key: ends.get(key, value) for key, value in one.items() if key not in dropped}


def _implied(name: str, one: dict) -> dict:
    return {key: value for key, value in one.items() if key != "how" or value != IMPLIED.get(name)}


def _outwards(value: float, up: bool) -> float:
    if not value:
        return value
    step = 10.0 ** (3 - math.floor(math.log10(abs(value))))
    return short((math.ceil if up else math.floor)(value * step) / step)


def loads(line: str | bytes, where: str = "record") -> dict:
    """Parse and check one line. RecordError says what is wrong and where."""
    if len(line) > 4 * MAX_BYTES:
        raise RecordError(
            f"a line of {len(line)} bytes exceeds the limit of {MAX_BYTES}", where=where, remedy="Is this a records file?"
        )
    try:
        record = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not valid JSON ({error})", where=where, remedy="Remove the line or restore the file.") from None
    problems = check(record)
    if problems:
        raise RecordError("; ".join(problems[:5]), where=where, remedy=_remedy(record))
    return record


def _no_constant(text: str):
    raise ValueError(f"{text} is not a JSON number")


def _remedy(record: Any) -> str:
    if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
        return f"This effbench reads schema {SCHEMA}: upgrade effbench to read newer records."
    return "Records come from `effbench run`; do not edit them."


def check(record: Any) -> list[str]:
    """What is wrong with a record, as sentences; empty where nothing is."""
    if not isinstance(record, dict):
        return [f"a record is an object, not {type(record).__name__}"]
    if record.get("schema") != SCHEMA:
        return [f"schema {record.get('schema')!r} is not {SCHEMA}"]
    problems = []
    for name, (types, required) in FIELDS.items():
        if name not in record:
            if required:
                problems.append(f"field '{name}' is missing")
        elif not isinstance(record[name], types) or isinstance(record[name], bool):
            problems.append(f"field '{name}' is {type(record[name]).__name__}, not {types[0].__name__}")
    problems += [f"unknown field '{name}'" for name in record if name not in FIELDS]
    if problems:
        return problems
    if record["status"] not in STATUSES:
        problems.append(f"unknown status '{record['status']}'")
    if record["role"] not in ROLES:
        problems.append(f"unknown role '{record['role']}'")
    if record["status"] != "ok" and not record["reason"]:
        problems.append(f"status '{record['status']}' without a reason")
    for name, value in record["readings"].items():
        problems += _check_reading(name, value)
    for name, values in record.get("samples", {}).items():
        if not isinstance(values, list) or len(values) > MAX_SAMPLES or not all(_number(v) for v in values):
            problems.append(f"samples '{name}' must be at most {MAX_SAMPLES} finite numbers")
    columns = record.get("curve", {})
    if not all(_number(entry) for column in columns.values() if isinstance(column, list) for entry in column):
        problems.append("the curve holds something that is not a finite number")
    if not all(isinstance(column, list) for column in columns.values()) or len({len(c) for c in columns.values()}) > 1:
        problems.append("the columns of the curve must be lists of one length")
    return problems


def _check_reading(name: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or "value" not in value or not isinstance(value.get("unit"), str):
        return [f"reading '{name}' needs value and unit"]
    unknown = set(value) - READING_FIELDS
    if unknown:
        return [f"reading '{name}' has unknown fields {sorted(unknown)}"]
    if any(not isinstance(value[field], str) for field in ("how", "reason") if field in value):
        return [f"reading '{name}' has a how or a reason that is not text"]
    if value["value"] is None:
        return [] if isinstance(value.get("reason"), str) and value["reason"] else [f"reading '{name}' is missing without a reason"]
    numbers = [value[f] for f in ("value", "low", "high", "n", "min", "p90", "p99", "cpu") if f in value]
    return [] if all(_number(v) for v in numbers) else [f"reading '{name}' has a number that is not finite"]


def _number(value: Any) -> bool:
    # An integer beyond the range of a float would raise in isfinite; no reading is that large.
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 1000
    return isinstance(value, float) and math.isfinite(value)
