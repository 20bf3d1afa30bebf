"""Process pairs: a fresh process for each side, both alive, timed in alternation. The caller's engine measures both sides.

One pair times its benchmarks in turn, so imports are paid once. A fork of a shared nursery would share address layout and hash
seed with its siblings; here every pair starts its own two interpreters. What is counted once (FLOPs, memory, size, quality)
comes from forks of their own, since memory that an earlier method gave back would hide a later one's peak.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from statistics import median, stdev
from types import SimpleNamespace
from typing import Any

from ..measure import noise
from ..plan.benches import Bench
from ..plan.registry import Registry
from .materials import Materials
from .opening import opening
from .schedule import LONG
from .supervisor import Child, Lost, Nursery, Refused

SIDES = ("base", "head")
LONG_BUILD = 5.0  # s; above this a built method is loaded from what its side saved, where it can be
SHORT_BUILD = 0.3  # s of builds a side and pair, at most MAX_BUILDS of them
MAX_BUILDS = 5
MORE, STEADY = 3, 0.01


@dataclass(frozen=True)
class Effort:
    """pairs: fresh process pairs for times; facts: for what is counted; turns: a side and setting, within a pair, and up to
    MORE times as many while their ratios scatter (on a disturbed machine). When to stop looks at the scatter, never at the ratio."""

    pairs: int = 10
    facts: int = 3
    turns: int = 8
    turn: float = 0.010  # s
    serve: float = 1.5  # s a side and setting may take within a pair, at least three turns


@dataclass
class Side:
    """One commit: its techniques, and what `Materials` asks of a runner."""

    name: str
    registry: Registry
    materials: Materials
    spawn: Callable[[Any], Child] | None = None
    plan: Any = None
    progress: Any = None

    def __post_init__(self):
        self.plan = SimpleNamespace(registry=self.registry)
        self.progress = SimpleNamespace(phase=lambda *_: None)

    def start(self, trial) -> Child:
        child = self.spawn(trial)
        try:
            child.ask("open", **opening(self.registry, trial))
        except Lost:
            child.end()
            raise
        return child


@dataclass
class Samples:
    """One metric of one setting in one process pair, a list of paired values for each side."""

    wall: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {side: [] for side in SIDES})

    def add(self, values: dict[str, tuple[float, float]]) -> None:
        for side in SIDES:
            self.wall[side].append(values[side][0])
            self.cpu[side].append(values[side][1])

    def scatter(self) -> float:
        """Standard error of the median log ratio, of CPU time where it is known."""
        times = self.cpu if min(*self.cpu["base"], *self.cpu["head"]) > 0 else self.wall
        logs = [log(head / base) for base, head in zip(times["base"], times["head"])]
        return 1.25 * stdev(logs) / len(logs) ** 0.5


Setting = tuple[str, tuple, tuple]


@dataclass
class Evidence:
    """What was measured of one benchmark. `failed`: setting (None: the whole benchmark) -> side -> (status, reason)."""

    bench: Bench
    times: dict[tuple[Setting | None, str], list[Samples]] = field(default_factory=dict)
    facts: dict[tuple[Setting | None, str], list[tuple[dict, dict]]] = field(default_factory=dict)
    failed: dict[Setting | None, dict[str, tuple[str, str]]] = field(default_factory=dict)
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    disturbed: list[str] = field(default_factory=list)  # a reason for each process pair that something else disturbed
    builds: dict[str, float] = field(default_factory=dict)  # longest build seen
    saved: dict[str, Path] = field(default_factory=dict)  # side -> what a long build saved

    retried: bool = False

    def fail(self, setting: Setting | None, side: str, lost: Lost) -> None:
        self.failed.setdefault(setting, {}).setdefault(side, (lost.status, lost.reason))

    @property
    def failing(self) -> bool:
        return not all(is_skip(sides) for sides in self.failed.values())

    @property
    def usable(self) -> bool:
        return None not in self.failed


def is_skip(sides: dict[str, tuple[str, str]]) -> bool:
    return all(status == "skipped" for status, _ in sides.values())


class Pair:
    """Two fresh interpreters for one (backend, device, threads) a side, alive at once. A context manager."""

    def __init__(self, processes: dict[str, tuple[str, str, int]], *, memory: int, seconds: float, hash_seed: int):
        self.memory, self.seconds = memory, seconds
        # One hash seed for both sides: what it does to dictionaries is then part of the pair, not of the difference.
        extra = {"PYTHONHASHSEED": str(hash_seed)}
        self.nurseries = {side: Nursery(*processes[side], extra=extra) for side in SIDES}
        self.children: dict[str, Child] = {}

    def fork(self, side: str, device: str) -> Child:
        return Child(self.nurseries[side], self.memory if device == "cpu" else 0, self.seconds)

    def child(self, side: str, device: str) -> Child:
        """The side's timed process; a new one where the last was lost."""
        found = self.children.get(side)
        if found is None or not found.alive:
            found = self.children[side] = self.fork(side, device)
        found.used = 0.0
        return found

    def cpu(self) -> float:
        """CPU seconds of the timed processes so far."""
        return sum(cpu_seconds(child.pid) for child in self.children.values())

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_) -> None:
        for child in self.children.values():
            child.end()
        for nursery in self.nurseries.values():
            nursery.close()


@dataclass
class Driver:
    """Measures benchmarks on two sides, pair by pair."""

    sides: dict[str, Side]
    effort: Effort
    memory: int = 8 << 30
    seconds: float = 600.0  # deadline of one trial's own commands in one process
    say: Callable[[str], None] = lambda text: None
    seed: int = 0

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        self.place = tempfile.TemporaryDirectory(prefix="effbench-saved-")

    def close(self) -> None:
        self.place.cleanup()

    def pair(self, bench: Bench) -> Pair:
        processes = {side: (t.backend, t.device, t.threads) for side, t in bench.trials.items()}
        return Pair(processes, memory=self.memory, seconds=self.seconds, hash_seed=self.rng.randrange(1, 2**32 - 1))

    def measure(self, wanted: dict[str, Evidence], *, times: Iterable[str], facts: Iterable[str], first: int = 0) -> None:
        """Add `effort.pairs` process pairs to the labels in `times` and `effort.facts` of them to those in `facts`.

        `first` is the number of the first pair: what is counted takes another seed in each, the same on both sides.
        """
        times, facts = set(times), set(facts)
        rounds = max(self.effort.pairs if times else 0, self.effort.facts if facts else 0)
        start = time.monotonic()
        for number in range(rounds):
            timed = {label for label in times if number < self.effort.pairs}
            counted = {label for label in facts if number < self.effort.facts}
            kinds = dict.fromkeys(wanted[label].bench.process for label in wanted if label in timed | counted)
            for kind in self.rng.sample(list(kinds), len(kinds)):
                group = [item for item in wanted.values() if item.bench.process == kind and item.bench.label in timed | counted]
                self.one(self.rng.sample(group, len(group)), timed, counted, first + number)
                # One failure may be the machine's: once a benchmark, it is tried again in processes of its own.
                for item in group:
                    if item.failing and not item.retried:
                        item.retried, item.failed = True, {key: value for key, value in item.failed.items() if is_skip(value)}
                        self.one([item], timed, counted, first + number)
            spent = time.monotonic() - start
            left = spent / (number + 1) * (rounds - number - 1)
            self.say(f"process pair {number + 1} of {rounds}: {spent:.0f} s, about {left:.0f} s left")

    def one(self, group: list[Evidence], timed: set[str], counted: set[str], number: int) -> None:
        """One process pair over the benchmarks of one kind."""
        with self.pair(group[0].bench) as pair:
            for side in SIDES:
                self.sides[side].spawn = lambda trial, side=side: pair.fork(side, trial.device)
            for item in group:
                if item.bench.label in counted and item.usable:
                    self.count(pair, item, number)
            for side in SIDES:
                pair.child(side, group[0].bench.head.device)
            before, own = noise.look(), pair.cpu()
            for item in group:
                if item.bench.label in timed and item.usable:
                    self.time(pair, item)
            after = noise.look()
            reason = noise.disturbed(before, after, own=after.own - before.own + pair.cpu() - own)
            for item in group:
                if reason and item.bench.label in timed:
                    item.disturbed.append(reason)

    # -- what is counted ----------------------------------------------------------------------------------------------

    def count(self, pair: Pair, item: Evidence, number: int) -> None:
        bench, found = item.bench, {}
        for side in SIDES:
            trial = bench.trials[side]
            trial = trial if bench.deterministic else replace(trial, seed=trial.seed + number)
            child = None
            try:
                prepared = self.sides[side].materials.prepared(trial, self.sides[side])
                child = self.sides[side].start(trial)
                found[side] = self.readings(child, item, side, prepared["path"])
                item.files[side] = child.ask("files")["files"]
                item.builds[side] = max(item.builds.get(side, 0.0), found[side][None]["build.time"]["value"] or 0.0)
            except Lost as lost:
                item.fail(None, side, lost)
            finally:
                if child is not None:
                    child.end()
        if len(found) < 2:
            return
        for setting, readings in found["base"].items():
            for name in {**readings, **found["head"][setting]} if setting in found["head"] else ():
                missing = {"value": None, "unit": "", "reason": "no such reading on this side"}
                pairs = item.facts.setdefault((setting, name), [])
                pairs.append((readings.get(name, missing), found["head"][setting].get(name, missing)))

    def readings(self, child: Child, item: Evidence, side: str, prepared: str) -> dict[Setting | None, dict]:
        bench, artifact = item.bench, ""
        if bench.settings[0][0]:
            artifact = tempfile.mkdtemp(dir=self.place.name)
        answer = child.ask("build", prepared=prepared, artifact=artifact, restore=False)
        out: dict[Setting | None, dict] = {None: {**answer["readings"], **answer["quality"]}}
        if artifact and any(Path(artifact).iterdir()) and out[None]["build.time"]["value"] > LONG_BUILD:
            item.saved.setdefault(side, Path(artifact))
        if bench.settings[0][0]:
            child.ask("open_serve")
            for setting in bench.settings:
                knobs = [list(pair) for pair in setting[1 + SIDES.index(side)]]
                try:
                    out[setting] = child.ask("finish", case=setting[0], knobs=knobs, energy=0.0)["readings"]
                except Refused as lost:  # a call that fails ends its own setting
                    item.fail(setting, side, lost)
        return out

    # -- what is timed ------------------------------------------------------------------------------------------------

    def time(self, pair: Pair, item: Evidence) -> None:
        """One benchmark in this pair: builds, then every setting, the sides in turn."""
        bench, side = item.bench, "base"
        try:
            children = {}
            for side in SIDES:
                children[side] = pair.child(side, bench.head.device)
            if set(item.saved) == set(SIDES):
                for side in SIDES:
                    self.ask_build(children[side], item, side, restore=True)
            else:
                builds = Samples()
                for order in self.orders(self.repeats(item)):
                    values = {}
                    for side in order:
                        reading = self.ask_build(children[side], item, side)
                        values[side] = reading["value"], reading.get("cpu") or 0.0
                    builds.add(values)
                item.times.setdefault((None, "build.time"), []).append(builds)
            if not bench.settings[0][0]:
                return
            for side in SIDES:
                children[side].ask("open_serve")
            for setting in self.rng.sample(bench.settings, len(bench.settings)):
                if setting not in item.failed and item.usable:
                    self.turns(children, item, setting)
        except Lost as lost:
            item.fail(None, side, lost)

    def turns(self, children: dict[str, Child], item: Evidence, setting: Setting) -> None:
        samples, spent, side = Samples(), 0.0, "base"
        try:
            for turn, order in enumerate(self.orders(MORE * self.effort.turns)):
                values = {}
                for side in order:
                    knobs = [list(knob) for knob in setting[1 + SIDES.index(side)]]
                    answer = children[side].ask("turn", case=setting[0], knobs=knobs, seconds=self.effort.turn, first=turn)
                    values[side] = median(answer["wall"]), median(answer["cpu"])
                    spent += answer["spent"] / 2
                samples.add(values)
                if turn >= 2 and (spent >= self.effort.serve or values["head"][0] > LONG):
                    break
                if turn + 1 >= self.effort.turns and turn % 2 and samples.scatter() < STEADY:
                    break
        except Lost as lost:
            item.fail(setting if isinstance(lost, Refused) else None, side, lost)
            return
        item.times.setdefault((setting, "serve.latency"), []).append(samples)

    def orders(self, turns: int):
        """ABBAABBA..., beginning with either side at random."""
        order = self.rng.sample(SIDES, 2)
        return [order if turn % 4 in (0, 3) else order[::-1] for turn in range(turns)]

    def repeats(self, item: Evidence) -> int:
        longest = max(item.builds.values(), default=SHORT_BUILD)
        return max(1, min(MAX_BUILDS, int(SHORT_BUILD / max(longest, 1e-4))))

    def ask_build(self, child: Child, item: Evidence, side: str, *, restore: bool = False) -> dict:
        """The reading of build.time of one build in the living process; {} where it was loaded instead."""
        trial = item.bench.trials[side]
        prepared = self.sides[side].materials.prepared(trial, self.sides[side])
        child.ask("open", **opening(self.sides[side].registry, trial))
        artifact = str(item.saved[side]) if restore else ""
        answer = child.ask("build", prepared=prepared["path"], artifact=artifact, restore=restore)
        return answer["readings"].get("build.time", {})


def cpu_seconds(pid: int) -> float:
    """User and system time of a process; 0 where it is gone or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
