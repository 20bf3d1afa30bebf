"""From recorded lines to the rows of the proof: comparisons cut out of process pairs, and those of other tools. Pure, but for reading."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from effbench.stats.interval import share
from effbench.study import compare as study
from effbench.study.compare import Times

RULES = {
    "cpu": {"effbench": (10, 0.02), "effbench --precise": (30, 0.01)},
    "cuda": {"effbench": (5, 0.01), "effbench, 2 %": (5, 0.02), "effbench --precise": (15, 0.01)},
}  # process pairs, minimum effect
EXTRAS = (0, 2, 5, 10)  # per cent of work more
WORKLOADS = ("matmul", "loop", "copy", "layer", "chain")


@dataclass(frozen=True)
class Found:
    """One comparison. `cpu` is its CPU seconds, start of processes included; None where they were not recorded."""

    verdict: str
    ratio: float
    cpu: float | None = None
    half: float | None = None  # half-width of the interval, as a share


Pair = tuple[Times, float | None]  # what one process pair measured of an arm, and its CPU seconds


def read(path: Path, digest: str) -> list[dict]:
    """Lines of one file that carry this digest; a torn last line is passed over."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # of an interrupted run
    return [row for row in rows if row.get("digest") == digest]


def comparisons(pairs: Sequence[Pair], count: int, effect: float, *, on_cpu: bool = True) -> list[Found]:
    """Disjoint comparisons in order: `count` pairs, and half or all as many again where the first raise a suspicion."""

    def judge(found):
        return study.judge_times([times for times, _ in found], effect=effect, on_cpu=on_cpu)

    out, place = [], 0
    while place + count <= len(pairs):
        used = first = pairs[place : place + count]
        place, found = place + count, judge(first)
        if study.suspected(found, effect):
            if place + count > len(pairs):
                break
            for upto in study.looks(count):
                fresh = pairs[place : place + upto]
                found, _ = study.settle(first, fresh, judge)
                if found.changed:
                    break
            used, place = [*first, *fresh], place + len(fresh)
        costs = [cost for _, cost in used]
        half = (found.high / found.low) ** 0.5 - 1 if found.low > 0 else None
        out.append(Found(found.verdict, found.ratio, None if None in costs else sum(costs), half))
    return out


def row(host: str, rule: str, extra: int, workload: str, found: Sequence[Found]) -> dict:
    """`hits` are false alarms (either way) in A/A, and SLOWER elsewhere; the bounds are Clopper and Pearson's, 95 %."""
    wanted = ("SLOWER", "FASTER") if extra == 0 else ("SLOWER",)
    counts = Counter(one.verdict for one in found)
    hits = sum(counts[verdict] for verdict in wanted)
    bound = share(hits, len(found))
    costs, halves = ([value for value in values if value is not None] for values in zip(*((one.cpu, one.half) for one in found)))
    return {
        "host": host, "rule": rule, "extra": extra, "workload": workload, "n": len(found), "hits": hits, "share": bound.value,
        "low": bound.low, "high": bound.high, "unclear": counts["UNCLEAR"], "opposite": counts["FASTER"] if extra else 0,
        "ratio": median(one.ratio for one in found), "half": median(halves) if halves else None, "cpu": fmean(costs) if costs else None,
    }  # fmt: skip


def with_total(host: str, rule: str, extra: int, found: dict[str, list[Found]]) -> list[dict]:
    """A row for each workload that has comparisons, and one for all of them where they are several."""
    found = {workload: found[workload] for workload in WORKLOADS if found.get(workload)}
    rows = [row(host, rule, extra, workload, ones) for workload, ones in found.items()]
    if len(found) > 1:
        rows.append(row(host, rule, extra, "all", [one for ones in found.values() for one in ones]))
    return rows


def own_rows(host: str, device: str, lines: Iterable[dict]) -> list[dict]:
    """Of one file of process pairs."""
    arms: dict[str, list[Pair]] = defaultdict(list)
    for line in lines:
        costs = line.get("cpu") or {}
        for name, columns in line["arms"].items():
            cost = costs["start"] + costs[name] if name in costs else None
            arms[name].append((Times(*columns), cost))
    rows = []
    for rule, (count, effect) in RULES[device].items():
        for extra in EXTRAS:
            found = {w: comparisons(arms[f"{w}+{extra}"], count, effect, on_cpu=device == "cpu") for w in WORKLOADS}
            rows += with_total(host, rule, extra, found)
    return rows


def peer_rows(host: str, lines: Iterable[dict]) -> list[dict]:
    """Of one file of comparisons by other tools; several rules may have judged the same numbers."""
    arms: dict[tuple, dict[str, list[Found]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for rule, verdict in line["verdicts"].items():
            key = f"{line['tool']} {line['version']}, {rule}", line["extra"]
            arms[key][line["workload"]].append(Found(verdict, line["ratios"][rule], line["cpu"]))
    return [made for (rule, extra), found in sorted(arms.items()) for made in with_total(host, rule, extra, found)]


def all_rows(folder: Path, digests: dict[str, str]) -> list[dict]:
    """Of every file of records in the folder: NAME-STATE-ENVIRONMENT.jsonl, NAME a key of `digests` (pairs measured on a GPU
    carry the digest of "pairs on a device")."""
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        kind, _, rest = path.stem.partition("-")
        lines = []
        for name, devices in ((kind, ("cpu",)), (f"{kind} on a device", ("cuda",))):
            lines += [line for line in read(path, digests.get(name, "")) if line.get("device", "cpu") in devices]
        if lines:
            state, on, device = rest.partition("-")[0], lines[0].get("on", ""), lines[0].get("device", "cpu")
            host = f"{state}, {on}" if on else state
            rows += peer_rows(host, lines) if kind == "peers" else own_rows(host, device, lines)
    return sorted(rows, key=lambda one: one["host"])


def markdown(rows: Sequence[dict]) -> str:
    if not rows:
        return "no whole comparison is recorded yet: run `collect` or `peers` first"
    lines = [
        "| host | rule | true change | workload | n | called | share [95 % Clopper-Pearson] | UNCLEAR | median ratio | half-width | CPU s |",
        "| --- | --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for one in rows:
        change = "none (A/A)" if one["extra"] == 0 else f"+{one['extra']} %"
        bound = f"{one['share']:.1%} [{one['low']:.1%}, {one['high']:.1%}]"
        half = "–" if one["half"] is None else f"±{one['half']:.1%}"
        cpu = "–" if one["cpu"] is None else f"{one['cpu']:.1f}"
        lines.append(
            f"| {one['host']} | {one['rule']} | {change} | {one['workload']} | {one['n']} | {one['hits']} | {bound} | {one['unclear']} | "
            f"{one['ratio']:.4f} | {half} | {cpu} |"
        )
    return "\n".join(lines)
