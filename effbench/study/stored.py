"""Two finished runs side by side. For trends: the runs were not interleaved, so what the machine did between them is in the numbers.

Unlike environments or data are refused with the fields that differ. A verdict on time needs intervals that stay apart by
STORED_EFFECT; work, size and quality are compared as in `study.compare`.
"""

from __future__ import annotations

import json
from math import log, nan
from pathlib import Path

from ..api.errors import RecordError
from ..measure.host import comparable, differences
from ..stats.paired import decide
from . import compare as study
from .compare import Row, Verdicts
from .records import Loaded, read

STORED_EFFECT = 0.10  # two runs of one commit on a quiet machine differ by half of that from process layout alone
MARK = "stored-run comparison"
MATCHED = ("role", "task", "data", "size", "method", "case", "seed", "device", "threads", "dtype")
TIMES = ("serve.latency", "build.time")


def compare(
    base: Path, head: Path, *, across: bool = False, strict: bool = False, better: dict[str, str] | None = None
) -> Verdicts:
    """Verdicts on what two runs share. RecordError where they are unlike (unless `across`) or share nothing."""
    loaded = {"base": read(base), "head": read(head)}
    found = Verdicts(str(base), str(head), kind="stored")
    found.rule = (
        f"{MARK}: the runs were not interleaved, so times serve trends only; a change needs intervals {STORED_EFFECT:.0%} apart"
    )
    ours, theirs = (by_identity(loaded[side]) for side in ("base", "head"))
    shared = [key for key in ours if key in theirs]
    unlike = unlikeness(loaded["base"], loaded["head"], [(ours[key], theirs[key]) for key in shared])
    if unlike and not across:
        raise RecordError(
            f"the runs are not alike: {'; '.join(unlike[:6])}", where=f"{base} and {head}",
            remedy="Measure both on one machine with `effbench compare BASE..HEAD`, or insist with --across.",
        )  # fmt: skip
    found.notes += [f"unlike, compared at your insistence: {text}" for text in unlike]
    if not shared:
        raise RecordError("the runs share no measurement", where=f"{base} and {head}", remedy="Compare runs of one suite.")
    for key in shared:
        found.rows += rows(ours[key], theirs[key], better or {})
    for label, extra in (
        ("only in the second run", theirs.keys() - ours.keys()),
        ("only in the first run", ours.keys() - theirs.keys()),
    ):
        if extra:
            names = sorted({f"{json.loads(key)[1]}/{json.loads(key)[4]}" for key in extra})
            found.notes.append(f"{label}: {', '.join(names[:8])}")
    found.rows = study.ordered(found.rows)
    found.code = study.code(found.rows, strict=strict)
    return found


def directions() -> dict[str, str]:
    """Which way each quality is better, as the tasks of this checkout say."""
    from ..plan.registry import Registry

    return {f"quality.{name}": metric.better for task in Registry.read().tasks.values() for name, metric in task.metrics.items()}


def by_identity(loaded: Loaded) -> dict[str, dict]:
    """Measured records by what they measured, whatever code did it."""
    out = {}
    for record in loaded.records:
        if record["role"] == "measure":
            parts = [record.get(name, "") for name in MATCHED] + [record[name] for name in ("params", "knobs", "budget")]
            out[json.dumps(parts, sort_keys=True)] = record
    return out


def unlikeness(base: Loaded, head: Loaded, pairs: list[tuple[dict, dict]]) -> list[str]:
    """Fields in which the two runs differ and may not, as sentences, each once."""
    said: dict[str, None] = {}
    for a, b in pairs:
        if a["environment"] != b["environment"]:
            facts = [side.environments.get(record["environment"]) for side, record in ((base, a), (head, b))]
            if None in facts:
                said[f"environment: {a['environment']} against {b['environment']}, and no description of one of them"] = None
                continue
            fields = differences(*(comparable(f, r["threads"], r["device"]) for f, r in zip(facts, (a, b))))
            said.update(dict.fromkeys(fields or [f"environment: {a['environment']} against {b['environment']}"]))
        if a["data_digest"] != b["data_digest"]:
            said[f"data {a['data']}: digest {a['data_digest'][:12]} against {b['data_digest'][:12]}"] = None
        if a["measure_version"] != b["measure_version"]:
            said[f"measure_version: {a['measure_version']} against {b['measure_version']}"] = None
    return list(said)


def rows(a: dict, b: dict, better: dict[str, str]) -> list[Row]:
    inner = ", ".join(f"{name}={value}" for name, value in b["params"].items())
    budget = f" with {json.dumps(b['budget'], sort_keys=True)}" if b["budget"] else ""
    label = f"{b['task']}/{b['method']}" + (f"({inner})" if inner else "") + f" on {b['data']}{budget} seed {b['seed']}"
    setting = " ".join([b["case"], *(f"{name}={value}" for name, value in sorted(b["knobs"].items()))]).strip()
    if (a["status"] == "ok") != (b["status"] == "ok"):
        verdict = study.MENDED if b["status"] == "ok" else study.BROKEN
        verdict = "UNCLEAR" if "unstable" in (a["status"], b["status"]) else verdict
        note = f"{a['status']} {a['reason']} against {b['status']} {b['reason']}"
        return [Row(label, setting, "status", "", nan, nan, nan, nan, nan, verdict, MARK, note=note)]
    if a["status"] != "ok":
        return []
    out = []
    for metric, reading in b["readings"].items():
        other = a["readings"].get(metric, {})
        if reading["value"] is None or other.get("value") is None:
            continue
        if metric in TIMES:
            out.append(_time(label, setting, metric, other, reading))
        elif judge := study.judge_reading(metric, better, exact=False):
            found = judge([(other["value"], reading["value"])])
            how = f"{MARK}; {found.how}"
            verdict = _quality(other, reading, better.get(metric, "higher")) if metric.startswith("quality.") else found.verdict
            values = (other["value"], reading["value"], found.ratio, found.low, found.high)
            out.append(Row(label, setting, metric, reading["unit"], *values, verdict, how))
    return out


def _time(label: str, setting: str, metric: str, a: dict, b: dict) -> Row:
    low, high, verdict = nan, nan, "UNCLEAR"
    if min(a["value"], b["value"]) <= 0:
        return Row(label, setting, metric, "s", a["value"], b["value"], nan, low, high, verdict, MARK)
    if all(reading.get(end) for reading in (a, b) for end in ("low", "high")):
        low, high = b["low"] / a["high"], b["high"] / a["low"]
        verdict = decide(log(low), log(high), STORED_EFFECT)
    ratio = b["value"] / a["value"]
    return Row(label, setting, metric, "s", a["value"], b["value"], ratio, low, high, verdict, f"{MARK}; quotient of the intervals")


def _quality(a: dict, b: dict, better: str) -> str:
    """Equal, apart with both intervals, or not told apart."""
    if a["value"] == b["value"]:
        return "SAME"
    if not all(reading.get(end) is not None for reading in (a, b) for end in ("low", "high")):
        return "UNCLEAR"
    if b["low"] > a["high"]:
        return study.BETTER if better == "higher" else study.WORSE
    if b["high"] < a["low"]:
        return study.WORSE if better == "higher" else study.BETTER
    return "UNCLEAR"
