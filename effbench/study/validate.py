"""Is a foreign record what a run of this code can have written? Schema, units, plausible numbers, sources, replay.

An error is a reason to refuse a record; a warning is a reason to look. Passing proves no honesty: it removes accidents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..api.record import MAX_BYTES, identity
from ..api.values import SIZES
from ..measure.roofline import IMPOSSIBLE, share
from ..plan import suite as suites
from ..plan.registry import Registry
from .merge import canonical, files
from .records import Tally, confined, environment, lines, short
from .stale import STALE, Freshness
from .tree import HEX, digest_at

ERROR, WARNING = "error", "warning"
FILE_LIMIT = 256 * 2**20
DEVICES = ("cpu", "cuda", "tpu")
UNITS = {
    "time": "s", "compile_time": "s", "latency": "s", "first_call": "s", "flops": "FLOP", "peak_memory": "B", "reserved": "B",
    "bytes": "B", "energy": "J", "power": "W", "ratio": "", "samples": "", "steps": "", "parameters": "1", "items": "item",
}  # fmt: skip
SHARES = re.compile(r"recall|(?<!relative-)accuracy|precision|\bauc\b|hit-rate")  # `relative-` is a ratio, which may exceed 1
THREAD_ROOF = 6e9 * 64  # FLOP/s: 6 GHz and two 512-bit multiply-adds of float32 a cycle; no thread of a CPU goes beyond
DEVICE_ROOF = {"cuda": 1e16, "tpu": 1e16}
BANDWIDTH_ROOF = {"cpu": 2e12, "cuda": 2e13, "tpu": 2e13}
STAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


@dataclass(frozen=True)
class Finding:
    level: str
    where: str  # file:line
    what: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what}"


def validate(paths: Sequence[Path], *, registry: Registry | None = None, now: datetime | None = None) -> tuple[int, list[Finding]]:
    """(number of sound lines, findings in the order of files and lines)."""
    registry = registry or Registry.read()
    now = now or datetime.now(UTC)
    count, findings = 0, []
    seen: dict[tuple, tuple[str, str]] = {}
    for path in paths:
        found = files(path)
        if not found:
            findings.append(Finding(ERROR, str(path), "the folder holds no records"))
        for file in found:
            try:
                confined(file, path if path.is_dir() else file.resolve().parent)
            except Exception as error:
                findings.append(Finding(ERROR, short(file), getattr(error, "what", str(error))))
                continue
            number, more = _file(file, registry, now, seen)
            count += number
            findings += more
    return count, findings


def _file(file: Path, registry: Registry, now: datetime, seen: dict) -> tuple[int, list[Finding]]:
    if file.stat().st_size > FILE_LIMIT:
        return 0, [Finding(ERROR, short(file), f"{file.stat().st_size} bytes exceed the limit of {FILE_LIMIT}")]
    problems, notes, findings, count = Tally(), [], [], 0
    environments = environment(file.parent, problems, notes)
    fresh = Freshness(registry, environments)
    try:
        for number, record in lines(file, problems, notes):
            where, count = f"{short(file)}:{number}", count + 1
            key, text = identity(record), canonical(record)
            if key in seen:
                same = "the same record stands" if seen[key][1] == text else "another record of this measurement stands"
                findings.append(Finding(WARNING if seen[key][1] == text else ERROR, where, f"{same} at {seen[key][0]}"))
            seen.setdefault(key, (where, text))
            if len(text) > MAX_BYTES:
                findings.append(Finding(ERROR, where, f"{len(text)} bytes exceed the limit of {MAX_BYTES} of a record"))
            checks = (
                _identity(record, registry, environments, now),
                _readings(record, registry),
                _plausible(record, environments),
                _sources(record, fresh),
            )
            findings += [Finding(level, where, what) for check in checks for level, what in check]
    except Exception as error:
        findings.append(Finding(ERROR, short(file), getattr(error, "what", str(error))))
    damaged = [Finding(ERROR, *reversed(_split(text))) for text in problems.lines()]
    torn = [Finding(WARNING, *reversed(_split(text))) for text in notes]
    if not count and not damaged:
        findings.append(Finding(ERROR, short(file), "the file holds no record"))
    return count, [*damaged, *findings, *torn]


def _split(text: str) -> tuple[str, str]:
    """(what, where) of a sentence that starts with a place."""
    where, _, what = text.partition(": ")
    return what or text, where


Check = Iterator[tuple[str, str]]


def _identity(record: dict, registry: Registry, environments: dict, now: datetime) -> Check:
    if record["size"] not in SIZES:
        yield ERROR, f"size '{record['size']}' is none of {', '.join(SIZES)}"
    if record["device"] not in DEVICES:
        yield ERROR, f"device '{record['device']}' is none of {', '.join(DEVICES)}"
    if record["environment"] not in environments:
        yield ERROR, f"environment {record['environment']} is not described in the environment.json beside the records"
    if not STAMP.fullmatch(record["time"]):
        yield ERROR, f"time '{record['time'][:40]}' is not written as 2026-01-31T12:00:00Z"
    elif record["time"] > now.strftime("%Y-%m-%dT%H:%M:%SZ"):
        yield ERROR, f"time {record['time']} lies in the future"
    if record["task"] not in registry.tasks:
        yield ERROR, f"there is no task '{record['task']}' here: it cannot be replayed"
    elif record["role"] != "prepared" and (record["task"], record["method"]) not in registry.methods:
        yield ERROR, f"task '{record['task']}' has no method '{record['method']}' here: it cannot be replayed"
    if record["suite"] not in suites.names():
        yield WARNING, f"there is no suite '{record['suite']}' here: it cannot be replayed by name"


def _readings(record: dict, registry: Registry) -> Check:
    task = registry.tasks.get(record["task"])
    metrics = task.metrics if task else {}
    for name, reading in record["readings"].items():
        head, _, tail = name.partition(".")
        if head == "quality" and task:
            if tail not in metrics:
                yield ERROR, f"{name}: task '{task.name}' has no such metric"
            elif reading["unit"] != metrics[tail].unit:
                yield ERROR, f"{name}: unit '{reading['unit']}', the task says '{metrics[tail].unit}'"
        elif head not in ("quality", "build", "serve", "size"):
            yield ERROR, f"{name}: readings are of build, serve, size or quality"
        else:
            expected = UNITS.get(name.rsplit(".", 1)[-1])
            if expected and reading["unit"] != expected:
                yield ERROR, f"{name}: unit '{reading['unit']}' instead of '{expected}'"
        value, low, high = reading["value"], reading.get("low"), reading.get("high")
        if value is None:
            continue
        slack = 1e-5 * abs(value) + 1e-12
        if low is not None and high is not None and not low - slack <= value <= high + slack:
            yield ERROR, f"{name}: {value} lies outside its interval [{low}, {high}]"
        if reading["unit"] in ("s", "FLOP", "B", "J") and value < 0:
            yield ERROR, f"{name}: negative ({value} {reading['unit']})"
        if reading["unit"] == "1" and SHARES.search(name) and not -1e-9 <= value <= 1 + 1e-9:
            yield ERROR, f"{name}: {value} is not between 0 and 1"
    if (
        record["status"] == "ok"
        and record["role"] == "measure"
        and not any(r["value"] is not None for r in record["readings"].values())
    ):
        yield ERROR, "status ok without a reading"


def _value(record: dict, name: str) -> float | None:
    return record["readings"].get(name, {}).get("value")


def _plausible(record: dict, environments: dict) -> Check:
    facts = environments.get(record["environment"], {})
    device = record["device"] if record["device"] in DEVICES else "cpu"
    roofs = facts.get("roofs") if isinstance(facts.get("roofs"), dict) else {}
    threads = max(
        1, record["threads"], facts.get("cores", 1) if isinstance(facts.get("cores"), int) and not record["threads"] else 1
    )
    peak = DEVICE_ROOF.get(device, THREAD_ROOF * threads)
    for phase, time_name in (("serve", "serve.latency"), ("build", "build.time")):
        time, flops, moved = _value(record, time_name), _value(record, f"{phase}.flops"), _value(record, f"{phase}.bytes")
        if time is None:
            continue
        if time <= 0:
            yield ERROR, f"{time_name} is {time}: no work is done in no time"
            continue
        if flops and flops / time > IMPOSSIBLE * peak:
            yield (
                ERROR,
                f"{phase}.flops over {time_name} is {flops / time:.3g} FLOP/s; no {device} of {threads} threads reaches {peak:.3g}",
            )
        if moved and moved / time > IMPOSSIBLE * BANDWIDTH_ROOF[device]:
            yield (
                ERROR,
                f"{phase}.bytes over {time_name} is {moved / time:.3g} B/s; no {device} reaches {BANDWIDTH_ROOF[device]:.3g}",
            )
        if phase == "serve" and roofs:
            try:
                found = share(flops, moved, time, roofs, record.get("dtype") or "float32")
            except (TypeError, ValueError, AttributeError):
                continue
            if found.reason:
                yield ERROR, f"{time_name}: {found.reason}"
            elif found.narrower:
                yield WARNING, f"{time_name}: {found.narrower}"
    items, time, rate = _value(record, "serve.items"), _value(record, "serve.latency"), _value(record, "serve.throughput")
    if items and time and rate and not 0.9 < rate * time / items < 1.1:
        yield ERROR, f"serve.throughput {rate:.4g} is not serve.items over serve.latency ({items / time:.4g})"
    for name, values in record.get("samples", {}).items():
        reading = record["readings"].get(name)
        middle = reading.get("value") if reading else None
        if middle and values and not min(values) * 0.99 <= middle <= max(values) * 1.01 and len(values) >= 8:
            yield WARNING, f"{name}: {middle} lies outside its own samples"


def _sources(record: dict, fresh: Freshness) -> Check:
    commit = record["commit"]
    state, why = fresh.of(record)
    if state == STALE:
        yield WARNING, f"content key {record['key']}: {why}"
    if commit.endswith("-dirty"):
        yield ERROR, f"commit {commit[:12]}-dirty: the measured sources lie in no commit; commit them and run again"
    elif not HEX.fullmatch(commit):
        yield ERROR, f"commit '{commit[:40]}' cannot be looked up"
    else:
        digest = digest_at(commit)
        if digest is None:
            yield WARNING, f"commit {commit[:12]} is not in this checkout: the digest of its sources was not checked"
        elif digest != record["tree"]:
            yield ERROR, f"source digest {record['tree']} is not that of commit {commit[:12]} ({digest})"


def text(count: int, findings: Sequence[Finding]) -> str:
    """Findings with equal words once, with how many more lines they are true of."""
    groups: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.level, _printable(finding.what)), []).append(_printable(finding.where))
    out = [
        f"{level}: {places[0]}: {what}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
        for (level, what), places in groups.items()
    ]
    errors = sum(finding.level == ERROR for finding in findings)
    return "\n".join([*out, f"{count} records, {errors} errors, {len(findings) - errors} warnings"])


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
