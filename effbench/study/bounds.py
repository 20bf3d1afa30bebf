"""One bound of a claim against records: the measured value with its interval, and whether the promise holds with all of it.

Ratios are paired wherever they can be: by round for latency against the group's baseline, by seed for everything that several
seeds measured. What cannot be paired is a ratio of two intervals, which is wider, and says so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..api.values import Bound
from ..plan.registry import MethodInfo
from ..stats.front import cost_at
from ..stats.interval import geometric_interval, mean_interval

HOLDS, FAILS, OPEN, MISSING = "holds", "fails", "open", "missing"
WORST = (FAILS, OPEN, MISSING, HOLDS)
COUNTED = ("serve.flops", "build.flops", "size.", "build.steps", "build.samples", "serve.items")  # numbers without scatter
AXES = {"build.time": "time", "build.flops": "flops", "build.steps": "steps", "build.samples": "samples"}
CONDITION = re.compile(r"\s*(\S+)\s*(<=|>=|<|>)\s*([-+.\deE]+)\s*")


@dataclass(frozen=True)
class Seen:
    """What was measured; `value` None with a reason where nothing was, `low` None with a reason where there is no interval."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "1"
    how: str = ""
    reason: str = ""

    def over(self, other: Seen) -> Seen:
        """Ratio of two intervals of positive numbers."""
        if not (self.value and other.value and self.value > 0 and other.value > 0):
            return Seen(reason="no ratio of numbers that are not positive")
        if self.low is None or other.low is None:
            return Seen(self.value / other.value, reason=self.reason or other.reason)
        if other.low <= 0:
            return Seen(self.value / other.value, reason="the interval of the divisor reaches 0")
        return Seen(
            self.value / other.value, self.low / other.high, self.high / other.low, "1", "ratio of two intervals, nothing paired"
        )


@dataclass(frozen=True)
class Part:
    """A bound with what was measured at the place where it does worst."""

    bound: Bound
    state: str  # HOLDS, FAILS, OPEN (the interval spans the bound, or there is none) or MISSING
    seen: Seen
    place: str = ""

    @property
    def promised(self) -> str:
        bound = self.bound
        text = f"{bound.metric} {bound.op} {bound.value:.4g}"
        more = {"over": bound.over, "at": bound.at, "case": bound.case, "data": bound.data}
        more |= {"with": settings_text(bound.params), "against": settings_text(bound.over_params)}
        more |= {"at equal": bound.budget}
        return text + "".join(f" {name} {value}" for name, value in more.items() if value)


def evaluate(bound: Bound, records: Sequence[dict], method: MethodInfo, other: MethodInfo | None) -> Part:
    """The bound at every data set and case that it is about; the worst of them counts."""
    own = [r for r in records if r["method"] == method.name and about(bound, r) and arm(r, method, bound.params)]
    if not own:
        where = " ".join(filter(None, [bound.data, bound.case, settings_text(bound.params)])) or "here"
        return Part(bound, MISSING, Seen(reason=f"not measured on {where}" if where != "here" else "not measured"))
    per_call = bound.metric.startswith(("serve.", "quality.")) or bool(bound.at)
    places = sorted({(r["data"], r["case"] if per_call else "") for r in own})
    found = []
    for data, case in places:
        mine, theirs = (
            [
                r
                for r in records
                if r["method"] == name and r["data"] == data and (r["case"] == case or not per_call) and arm(r, info, wanted)
            ]
            for name, info, wanted in ((method.name, method, bound.params), (bound.over, other, bound.over_params))
        )
        seen = measured(bound, usable(mine, bound.metric), usable(theirs, bound.metric), method, other)
        if not usable(mine, bound.metric):
            seen = Seen(reason=f"{method.name} {why(mine)}")
        elif bound.over and not usable(theirs, bound.metric):
            seen = Seen(reason=f"{bound.over} {why(theirs)}")
        label = ", ".join(filter(None, [case, data if len({d for d, _ in places}) > 1 else ""]))
        found.append(Part(bound, judge(bound, seen), seen, label))
    return min(found, key=lambda part: WORST.index(part.state))


def about(bound: Bound, record: dict) -> bool:
    here = bound.case in ("", record["case"]) and (not bound.data or same_data(bound.data, record["data"]))
    return here and bound.budget in ("", equality(record["budget"]))


def equality(budget: dict) -> str:
    """What a record's budget makes equal between methods; "" without one."""
    return "flops" if "like" in budget else next(iter(budget), "")


def arm(record: dict, info: MethodInfo | None, wanted: Mapping[str, Any]) -> bool:
    """Whether the record was made at the settings that a bound names; those that it does not name may be anything."""
    if not wanted:
        return True
    usual = {name: setting.default for name, setting in info.settings.items()} if info else {}
    have = {**usual, **record["params"], **record["knobs"]}
    return all(have.get(name) == value for name, value in wanted.items())


def settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def same_data(wanted: str, found: str) -> bool:
    """Whether data as a record writes it are meant by "name(arg=value)": the same name, and every named argument the same."""
    (name, args), (other, present) = split(wanted), split(found)
    return name == other and args <= present


def split(text: str) -> tuple[str, set[str]]:
    name, _, inner = text.strip().removesuffix(")").partition("(")
    return name.strip(), {re.sub(r"\s*=\s*", "=", part.strip()) for part in inner.split(",") if part.strip()}


def usable(records: Iterable[dict], metric: str = "") -> list[dict]:
    """Records with a result. Unstable ones have no seconds of a call to speak of; everything else in them stands."""
    timed = metric.startswith(("serve.latency", "serve.throughput", "serve.cpu", "serve.energy"))
    return [record for record in records if record["status"] == "ok" or (record["status"] == "unstable" and not timed)]


def why(records: Sequence[dict]) -> str:
    return f"has no result here ({records[0]['status']}: {records[0]['reason'][:120]})" if records else "was not measured here"


def judge(bound: Bound, seen: Seen) -> str:
    if seen.value is None:
        return MISSING
    if seen.low is None or seen.high is None:
        return OPEN
    low, high, value = seen.low, seen.high, bound.value
    inside, beyond = {
        "<=": (high <= value, low > value),
        "<": (high < value, low >= value),
        ">=": (low >= value, high < value),
        ">": (low > value, high <= value),
    }[bound.op]
    return HOLDS if inside else FAILS if beyond else OPEN


# -- measuring ------------------------------------------------------------------------------------------------------------


def measured(bound: Bound, mine: list[dict], theirs: list[dict], method: MethodInfo, other: MethodInfo | None) -> Seen:
    if not mine or (bound.over and not theirs):
        return Seen(reason="not measured")
    if bound.at:
        return at_quality(bound, mine, theirs)
    own = by_seed(mine, method, bound.params)
    if own is None:
        return Seen(reason=f"{method.name} was measured at several settings, and none of them is its default or tuned one")
    if not bound.over:
        return alone(bound.metric, own)
    reference = by_seed(theirs, other, bound.over_params)
    if reference is None:
        return Seen(reason=f"{bound.over} was measured at several settings, and none of them is its default or tuned one")
    return ratio(bound.metric, own, reference)


def by_seed(records: list[dict], info: MethodInfo | None, wanted: Mapping[str, Any]) -> dict[int, dict] | None:
    """One record a seed: at the tuned settings, else at the defaults (but for what is `wanted`), else at the only ones."""
    if any(record.get("tuning", {}).get("trials") for record in records):
        records = [record for record in records if record.get("tuning", {}).get("trials")]
    for field, kind in (("params", "param"), ("knobs", "knob")):
        if len({(r["seed"], json.dumps(r[field], sort_keys=True)) for r in records}) == len({r["seed"] for r in records}):
            continue
        usual = {name: wanted.get(name, setting.default) for name, setting in info.of_kind(kind).items()} if info else {}
        records = [record for record in records if {**usual, **record[field]} == usual]
    found: dict[int, dict] = {}
    for record in sorted(records, key=lambda record: record["case"]):
        found.setdefault(record["seed"], record)
    return found or None


def read(metric: str, record: dict) -> Seen:
    reading = record["readings"].get(metric)
    if reading is None or reading["value"] is None:
        return Seen(reason=f"{record['method']} has no {metric} ({reading['reason'] if reading else 'not measured'})"[:160])
    value = float(reading["value"])
    if metric.startswith(COUNTED):
        return Seen(value, value, value, reading["unit"], "counted")
    if reading.get("low") is None or reading.get("high") is None:
        return Seen(value, unit=reading["unit"], reason=f"one measurement of {metric} has no interval: run several seeds")
    return Seen(value, float(reading["low"]), float(reading["high"]), reading["unit"], "one seed")


def alone(metric: str, own: dict[int, dict]) -> Seen:
    seen = [read(metric, record) for record in own.values()]
    if missing := next((one for one in seen if one.value is None), None):
        return missing
    if len(seen) == 1:
        return seen[0]
    if all(one.how == "counted" for one in seen):
        return envelope(seen, "counted")
    values = [one.value for one in seen]
    low, high = mean_interval(values)
    return Seen(sum(values) / len(values), low, high, seen[0].unit, f"mean of {len(values)} seeds, Student t")


def envelope(seen: Sequence[Seen], how: str) -> Seen:
    values = sorted(one.value for one in seen)
    if unknown := next((one for one in seen if one.low is None), None):
        return Seen(values[len(values) // 2], unit=unknown.unit, reason=unknown.reason)
    middle = values[len(values) // 2]
    return Seen(middle, min(one.low for one in seen), max(one.high for one in seen), seen[0].unit, how)


def ratio(metric: str, own: dict[int, dict], theirs: dict[int, dict]) -> Seen:
    if metric == "serve.latency" and (paired := by_round(own, next(iter(theirs.values()))["method"])):
        return paired
    common = sorted(own.keys() & theirs.keys())
    mine, other = ({seed: read(metric, record) for seed, record in arm.items()} for arm in (own, theirs))
    if missing := next((one for one in [*mine.values(), *other.values()] if one.value is None), None):
        return missing
    if all(one.how == "counted" for one in [*mine.values(), *other.values()]):
        pairs = [(mine[seed], other[seed]) for seed in common] or [(m, o) for m in mine.values() for o in other.values()]
        return envelope([Seen(m.value, m.value, m.value).over(o) for m, o in pairs], "counted")
    if metric.startswith("serve.") and any(own[seed]["group"] != theirs[seed]["group"] for seed in common):
        return Seen(reason="the two were not timed in the same rounds")
    if len(common) >= 2:
        return paired_ratios([mine[seed].value for seed in common], [other[seed].value for seed in common])
    return alone(metric, own).over(alone(metric, theirs))


def by_round(own: dict[int, dict], over: str) -> Seen | None:
    """Latency against the group's baseline, from ratios of turns of the same round; None where there are none."""
    seen = []
    for record in own.values():
        one = read("serve.latency.ratio", record)
        if record.get("baseline") != over or one.low is None:
            return None
        seen.append(one)
    if len(seen) == 1:
        return Seen(seen[0].value, seen[0].low, seen[0].high, "1", "paired by round, one process")
    if len(seen) == 2:
        return envelope(seen, "paired by round, envelope of two processes")
    value, low, high = geometric_interval([one.value for one in seen])
    return Seen(value, low, high, "1", f"paired by round, over {len(seen)} processes")


def paired_ratios(mine: Sequence[float], theirs: Sequence[float]) -> Seen:
    if min(*mine, *theirs) <= 0:
        return Seen(reason="no ratio of numbers that are not positive")
    value, low, high = geometric_interval([a / b for a, b in zip(mine, theirs)])
    return Seen(value, low, high, "1", f"paired by {len(mine)} seeds")


# -- at a quality ---------------------------------------------------------------------------------------------------------


def at_quality(bound: Bound, mine: list[dict], theirs: list[dict]) -> Seen:
    """The cost at which a quality is reached: off the knob front, or off the training curve; on lines over its logarithm."""
    found = CONDITION.fullmatch(bound.at)
    if found is None:
        return Seen(reason=f"cannot read the condition '{bound.at}'")
    quality, better, target = found[1], "higher" if found[2][0] == ">" else "lower", float(found[3])
    if not mine[0]["case"]:
        return at_curve(bound, quality.removeprefix("quality."), better, target, mine, theirs)
    paired = bool(bound.over) and bound.metric == "serve.latency" and all(r.get("baseline") == bound.over for r in [*mine, *theirs])
    metric = "serve.latency.ratio" if paired else bound.metric
    own = at_front(metric, quality, better, target, mine)
    if not bound.over or own.value is None:
        return own
    reference = at_front(metric, quality, better, target, theirs)
    if reference.value is None:
        return reference
    if paired and len({json.dumps([r["params"], r["knobs"]], sort_keys=True) for r in theirs}) == 1:
        return Seen(own.value, own.low, own.high, "1", "off the front, paired by round", own.reason)
    return own.over(reference)


def at_front(metric: str, quality: str, better: str, target: float, records: list[dict]) -> Seen:
    directions = ("higher" if metric.startswith("serve.throughput") else "lower", better)
    seen = []
    for seed in sorted({record["seed"] for record in records}):
        points = [(read(metric, r), read(quality, r)) for r in records if r["seed"] == seed]
        points = [(cost, good) for cost, good in points if cost.value is not None and good.value is not None and cost.value > 0]
        values = [cost_at(target, [c.value for c, _ in points], [q.value for _, q in points], directions)] if points else [None]
        for cost_end, quality_end in (("low", "high"), ("high", "low")):
            # The good end of a cost together with the good end of the quality, and the bad with the bad.
            if directions[0] == "higher":
                cost_end = {"low": "high", "high": "low"}[cost_end]
            if better == "lower":
                quality_end = {"low": "high", "high": "low"}[quality_end]
            costs = [getattr(c, cost_end) or c.value for c, _ in points]
            goods = [q.value if getattr(q, quality_end) is None else getattr(q, quality_end) for _, q in points]
            values.append(cost_at(target, costs, goods, directions) if points else None)
        seen.append(values)
    if any(values[0] is None for values in seen):
        return Seen(reason=f"{records[0]['method']} does not reach {quality} {target:g} at any setting that was measured")
    unit = next((read(metric, r).unit for r in records if read(metric, r).value is not None), "1")
    middle = sorted(values[0] for values in seen)[len(seen) // 2]
    if any(value is None for values in seen for value in values):
        return Seen(middle, unit=unit, reason=f"the interval of {quality} reaches beyond the front that was measured")
    flat = [value for values in seen for value in values]
    return Seen(middle, min(flat), max(flat), unit, "off the front")


def at_curve(bound: Bound, column: str, better: str, target: float, mine: list[dict], theirs: list[dict]) -> Seen:
    axis = AXES.get(bound.metric)
    if axis is None:
        return Seen(reason=f"a curve has no {bound.metric} (known: {', '.join(AXES)})")

    def reached(records: list[dict]) -> dict[int, tuple[float | None, float]]:
        found = {}
        for record in sorted(records, key=lambda r: bool(r.get("tuning", {}).get("trials"))):
            curve = record.get("curve", {})
            if column in curve and axis in curve and min(curve[axis]) > 0:
                found[record["seed"]] = (cost_at(target, curve[axis], curve[column], ("lower", better)), curve[axis][-1])
        return found

    own, other = reached(mine), reached(theirs)
    if not own or (bound.over and not other):
        return Seen(reason=f"no curve of {column} over {axis} was kept")
    if not bound.over:
        if any(cost is None for cost, _ in own.values()):
            return Seen(reason=f"it did not reach {bound.at} within its budget")
        values = [cost for cost, _ in own.values()]
        low, high = mean_interval(values)
        return Seen(
            sum(values) / len(values), low, high, "1", "off the curve", "" if low is not None else "one seed has no interval"
        )
    pairs = [(own[seed], other[seed]) for seed in sorted(own.keys() & other.keys())]
    if all(m is None and o is None for (m, _), (o, _) in pairs):
        return Seen(reason=f"neither reached {bound.at} within its budget")
    if all(m is not None and o is not None for (m, _), (o, _) in pairs):
        found = paired_ratios([m for (m, _), _ in pairs], [o for _, (o, _) in pairs])
        return found if found.low is not None else Seen(found.value, reason="one seed has no interval: run several seeds")
    lows = [m / o if m and o else 0.0 if m else end / o if o else 0.0 for (m, end), (o, _) in pairs]
    highs = [m / o if m and o else m / end if m else math.inf for (m, _), (o, end) in pairs]
    middle = sorted(h if math.isfinite(h) else low for low, h in zip(lows, highs))[len(pairs) // 2]
    return Seen(middle, min(lows), max(highs), "1", "off the curves; where one never got there, from where it stopped")
