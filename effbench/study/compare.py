"""Verdicts of a comparison of two sides, metric by metric. Pure: takes what was measured, returns rows.

Times: `stats.paired`, on process CPU time where the device is the CPU, with wall time beside. Work, size and quality come from a
few fresh processes and are compared as exact where they are, else by an interval. Whatever looks like a change is measured again
with fresh processes (`suspected`) and counts only if those alone point the same way (`settle`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, inf, isfinite, log, log1p, nan
from statistics import fmean, median

from ..stats import interval
from ..stats.paired import Comparison, compare, decide

WALL_EFFECT = 0.05  # waiting is judged on wall time, which a busy machine moves
COUNT_EFFECT, SIZE_EFFECT, MEMORY_EFFECT, QUALITY_EFFECT = 0.005, 0.005, 0.10, 0.005
MEMORY_FLOOR = 2 << 20  # B; less is the allocator's business
BUILD_FLOOR = 2e-3  # s; shorter builds are shown, not judged
WORSE, BETTER, BROKEN, MENDED = "WORSE", "BETTER", "BROKEN", "MENDED"
REGRESSIONS, GAINS = {"SLOWER", WORSE, BROKEN}, {"FASTER", BETTER, MENDED}
ORDER = (BROKEN, "SLOWER", WORSE, "UNCLEAR", MENDED, "FASTER", BETTER, "SAME")
COUNTED = {
    "serve.flops": COUNT_EFFECT, "build.flops": COUNT_EFFECT, "size.parameters": COUNT_EFFECT, "size.bytes": SIZE_EFFECT,
    "serve.peak_memory": MEMORY_EFFECT, "build.peak_memory": MEMORY_EFFECT, "serve.device_peak_memory": MEMORY_EFFECT,
    "build.device_peak_memory": MEMORY_EFFECT,
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One metric of one benchmark. `ratio` is head over base; quality has `low` and `high` as ratios too. nan: not known."""

    bench: str
    setting: str
    metric: str
    unit: str
    base: float
    head: float
    ratio: float
    low: float
    high: float
    verdict: str
    how: str
    wall: tuple[float, float, float] | None = None  # ratio and interval of wall time, where the verdict is on CPU time
    again: bool = False  # measured again with fresh processes
    note: str = ""

    def data(self) -> dict:
        """Plain JSON: numbers that are not finite are null."""

        def plain(value):
            if isinstance(value, (tuple, list)):
                return [plain(item) for item in value]
            return None if isinstance(value, float) and not isfinite(value) else value

        return {key: plain(value) for key, value in asdict(self).items()}


@dataclass
class Verdicts:
    """What a comparison found. `kind` is "commits", or "stored" where two finished runs were compared."""

    base: str
    head: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    code: int = 2
    seconds: float = 0.0
    rule: str = ""
    kind: str = "commits"

    @property
    def counts(self) -> dict[str, int]:
        found = Counter(row.verdict for row in self.rows)
        return {word: found[word] for word in ORDER if found[word]}

    def data(self) -> dict:
        return {
            "kind": self.kind, "base": self.base, "head": self.head, "code": self.code, "verdicts": self.counts, "rule": self.rule,
            "seconds": round(self.seconds, 1), "notes": self.notes, "rows": [row.data() for row in self.rows],
        }  # fmt: skip


@dataclass(frozen=True)
class Times:
    """One process pair: paired turns in seconds, or the medians of paired contexts of a device. `cpu` is all zeros where it is not known."""

    base_wall: Sequence[float]
    head_wall: Sequence[float]
    base_cpu: Sequence[float]
    head_cpu: Sequence[float]


@dataclass(frozen=True)
class Judged:
    """A verdict on one clock, or on a count, before it has a name."""

    ratio: float
    low: float
    high: float
    verdict: str
    how: str
    wall: tuple[float, float, float] | None = None

    @property
    def changed(self) -> bool:
        return self.verdict not in ("SAME", "UNCLEAR")

    @property
    def excludes_none(self) -> bool:
        return self.low > 1 or self.high < 1


# -- times ------------------------------------------------------------------------------------------------------------


def judge_times(pairs: Sequence[Times], *, effect: float, on_cpu: bool) -> Judged:
    """The verdict on CPU time where it is to be had; on wall time where only waiting changed, beyond a larger effect.

    On another device a pair holds contexts, not turns (`run.contexts`): each has one of a few speeds, so their mean is what settles."""
    wall = _clock(pairs, "wall", max(effect, WALL_EFFECT) if on_cpu else effect, fmean if not on_cpu else median)
    known = all(min(*pair.base_cpu, *pair.head_cpu) > 0 for pair in pairs)
    beside = (wall.ratio, wall.low, wall.high)
    if not on_cpu or not known:
        return Judged(*beside, wall.verdict, f"wall time, {wall.rule}")
    cpu = _clock(pairs, "cpu", effect)
    if cpu.verdict == "SAME" and wall.verdict in ("FASTER", "SLOWER"):
        return Judged(*beside, wall.verdict, f"wall time (CPU time is the same), {wall.rule}")
    return Judged(cpu.ratio, cpu.low, cpu.high, cpu.verdict, f"CPU time, {cpu.rule}", beside)


def _clock(pairs: Sequence[Times], clock: str, effect: float, middle: Callable = median) -> Comparison:
    head, base = ([getattr(pair, f"{side}_{clock}") for pair in pairs] for side in ("head", "base"))
    return compare(head, base, minimum_effect=effect, middle=middle)


def suspected(found: Judged, effect: float) -> bool:
    """Whether to measure again: a change was seen, or one that the interval does not yet separate from a small one."""
    return found.changed or (found.verdict == "UNCLEAR" and found.excludes_none and abs(log(found.ratio)) > log1p(effect))


def looks(pairs: int) -> tuple[int, ...]:
    """How many fresh pairs may settle a suspicion: half as many as raised it; all where half did not confirm a change."""
    half = -(-pairs // 2)
    return (half, pairs) if half < pairs else (pairs,)


def settle(first: Sequence, fresh: Sequence, judge: Callable[[Sequence], Judged]) -> tuple[Judged, str]:
    """The verdict of all processes together; a change counts only if the fresh ones alone exclude that there is none.

    The fresh ones were not chosen for what they showed, so they are an honest second opinion; pooling alone would not be one.
    """
    pooled, alone = judge([*first, *fresh]), judge(fresh)
    if not pooled.changed:
        return pooled, "measured again: not settled" if pooled.verdict == "UNCLEAR" else "measured again: no change"
    if alone.excludes_none and (alone.low > 1) == (pooled.low > 1):
        return pooled, "measured again with fresh processes: holds"
    again = f"measured again with fresh processes: {alone.ratio:.3f} [{alone.low:.3f}, {alone.high:.3f}], not confirmed"
    return Judged(pooled.ratio, pooled.low, pooled.high, "UNCLEAR", pooled.how, pooled.wall), again


# -- what is counted --------------------------------------------------------------------------------------------------


def judge_counts(pairs: Sequence[tuple[float, float]], *, effect: float, floor: float = 0.0) -> Judged:
    """(base, head) of each process; less is better. Differences below `floor` are none."""
    if all(a == b for a, b in pairs):
        return Judged(1.0, 1.0, 1.0, "SAME", f"equal in {len(pairs)} processes")
    base, head = median(a for a, _ in pairs), median(b for _, b in pairs)
    if abs(head - base) < floor:
        ratio = head / base if base > 0 else nan
        return Judged(ratio, nan, nan, "SAME", f"a difference below {floor / 2**20:.0f} MiB")
    # What is below the floor is as good as the floor: 0 bytes against 8 MiB is not an infinite ratio.
    logs = [
        log(max(b, floor) / max(a, floor)) if min(max(a, floor), max(b, floor)) > 0 else (inf if b > a else -inf) for a, b in pairs
    ]
    if not all(map(isfinite, logs)):
        agree = len(set(logs)) == 1
        verdict = (WORSE if logs[0] > 0 else BETTER) if agree else "UNCLEAR"
        return Judged(exp(logs[0]) if logs[0] < 0 else inf, nan, nan, verdict, "zero on one side")
    if len(set(logs)) == 1:
        low = high = logs[0]
        how = f"the same ratio in {len(pairs)} processes"
    else:
        found = interval.mean(logs)
        low, high, how = found.low, found.high, f"Student t over {len(pairs)} processes"
    center = sum(logs) / len(logs)
    word = {"SLOWER": WORSE, "FASTER": BETTER}.get(verdict := decide(low, high, effect), verdict)
    return Judged(exp(center), exp(low), exp(high), word, f"{how}, minimum effect {effect:.1%}")


def judge_quality(pairs: Sequence[tuple[float, float]], *, better: str, exact: bool, effect: float = QUALITY_EFFECT) -> Judged:
    """(base, head) of each seed. With `exact` (a deterministic method) any difference beyond the effect is a fact, not a sample."""
    scale = sum(abs(a) for a, _ in pairs) / len(pairs) or 1.0
    differences = [(b - a) / scale for a, b in pairs]
    if all(abs(d) <= 1e-9 for d in differences):
        return Judged(1.0, 1.0, 1.0, "SAME", f"equal on {len(pairs)} seeds")
    center = sum(differences) / len(differences)
    if exact:
        low = high = center
        how = "a deterministic method, so every difference is real"
    elif len(differences) > 1:
        found = interval.mean(differences)
        low, high, how = found.low, found.high, f"Student t over {len(pairs)} seeds"
    else:
        low, high, how = nan, nan, "one seed"
    gain, loss = (BETTER, WORSE) if better == "higher" else (WORSE, BETTER)
    verdict = "UNCLEAR"
    if low > effect:
        verdict = gain
    elif high < -effect:
        verdict = loss
    elif -effect <= low and high <= effect:
        verdict = "SAME"
    return Judged(1 + center, 1 + low, 1 + high, verdict, f"{how}, minimum effect {effect:.1%}")


def judge_reading(name: str, better: dict[str, str], exact: bool) -> Callable[[Sequence[tuple[float, float]]], Judged] | None:
    """How a counted reading is judged; None where it is not."""
    if name in COUNTED:
        floor = MEMORY_FLOOR if "memory" in name else 0.0
        return lambda pairs: judge_counts(pairs, effect=COUNTED[name], floor=floor)
    if name.startswith("quality."):
        return lambda pairs: judge_quality(pairs, better=better.get(name, "higher"), exact=exact)
    return None


# -- the whole --------------------------------------------------------------------------------------------------------


def code(rows: Sequence[Row], *, strict: bool = False) -> int:
    """Exit code: 1 a regression, 2 nothing was measured, 3 something unclear with `strict`, else 0."""
    if any(row.verdict in REGRESSIONS for row in rows):
        return 1
    if not any(row.verdict in ORDER for row in rows):
        return 2
    return 3 if strict and any(row.verdict == "UNCLEAR" for row in rows) else 0


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Regressions first, each kind in the order in which it was measured."""
    place = {verdict: number for number, verdict in enumerate(ORDER)}
    return sorted(rows, key=lambda row: place.get(row.verdict, len(ORDER)))
