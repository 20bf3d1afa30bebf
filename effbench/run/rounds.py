"""One part of a group: live workers that are timed in rounds beside the baseline, then counted, scored and recorded.

Each round visits, case by case, every (method, knobs) in a seeded random order, so that a ratio compares two turns that lie close in
time. What is not timed (drawing inputs, scoring answers) is done by as many workers at a time as there are cores.
"""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..measure import noise
from ..plan.plan import Group
from ..plan.trial import Trial
from . import derived
from .abreast import abreast
from .assemble import Timing
from .supervisor import Child, Lost, Refused

if TYPE_CHECKING:
    from .schedule import Runner

SERIOUS = 10  # rounds from which seconds are meant to be read: with fewer (smoke) nothing is called unstable
LONG = 2.0  # s; a call above this is timed three times
FRESH = 0.005  # s; how old a look before a turn may be
LEAST = 3  # turns of every setting from which --within ends the rounds of a group instead of throwing them away
SCORE = 1.0  # s that the counts, memory and scores of a setting take, until it is known


class OutOfTime(Exception):
    """--within is over: stop cleanly, resumable."""


@dataclass
class Live:
    """A built method whose worker waits for its turns."""

    trial: Trial
    child: Child
    build: dict
    settings: list[tuple]  # (case, knobs) that this worker is to measure
    timings: dict[tuple, Timing] = field(default_factory=dict)
    failed: dict[tuple, tuple[str, str]] = field(default_factory=dict)
    left: set[tuple] = field(default_factory=set)  # settings for a second worker, since this one ended in another


@dataclass
class Part:
    """Built methods whose workers wait for their turns; `lead` is the baseline among them, where it could be built."""

    runner: Runner
    group: Group
    live: list[Live]
    lead: Live | None
    drawn: dict[str, float] = field(default_factory=dict)  # case -> s that drawing its inputs took

    def rounds(self) -> None:
        """At least `limits.rounds` rounds, half as many again for settings whose turns were disturbed. Where --within is nearly over
        they end early, once every setting has had LEAST turns: readings say how many there were."""
        limits = self.runner.plan.suite.limits
        rng = random.Random(f"{self.group.seed}-{self.group.task.name}-{self.group.data}")
        extra = limits.rounds // 2 if limits.rounds >= SERIOUS else 0
        for number in range(limits.rounds + extra):
            open_cases = list(dict.fromkeys(case for item in self.live for case, _ in item.settings))
            rng.shuffle(open_cases)
            visited = False
            for case in open_cases:
                turns = list(self.turns(case))
                if all(self.enough(item, setting, number) for item, setting in turns):
                    continue
                if self.short():
                    return
                if case not in self.drawn:
                    self.draw(case)
                    turns = [(item, setting) for item, setting in turns if setting not in item.failed]
                rng.shuffle(turns)
                visited = True
                done = {(id(item), setting) for item, setting in turns if self.turn(item, setting, number)}
                self.ratios(case, done)
            if not visited:
                break
            self.runner.progress.round(self.group, min(number + 1, limits.rounds), limits.rounds)

    def draw(self, case: str) -> None:
        """The inputs of a case, in all workers at the same time: that is not timed, and at length takes longer than the turns."""
        start = self.runner.clock()

        def job(item: Live) -> Iterator[None]:
            self.runner.progress.phase(item.trial, f"draw {case}")
            try:
                item.child.ask("draw", case=case, cores=self.runner.cores)
            except Lost as lost:
                self.lost(item, [setting for setting in item.settings if setting[0] == case], lost)
            yield from ()

        asked = [item for item in self.live if item.child.alive and any(own == case for own, _ in item.settings)]
        self.abreast(asked, job)
        self.drawn[case] = self.runner.clock() - start

    def abreast(self, live: list[Live], job: Callable[[Live], Iterator], use: Callable[..., None] = lambda found: None) -> None:
        """`job` of each worker, as many at a time as there are cores; what they yield goes to `use`, here in the main thread."""

        def stop() -> None:
            for item in live:
                item.child.nursery.kill(item.child.pid)

        width = len(self.runner.cores) // max((item.trial.threads for item in live), default=1)
        with contextlib.closing(abreast([functools.partial(job, item) for item in live], width, stop)) as results:
            for found in results:
                use(found)

    def short(self) -> bool:
        """Whether the time left is needed for scores. OutOfTime where too little has been measured for any."""
        settings = [
            (item, setting) for item in self.live for setting in item.settings if setting not in item.failed.keys() | item.left
        ]
        each = max(self.runner.scored[-3:], default=SCORE)
        try:
            # Scoring draws the inputs again and computes the truth from them.
            self.runner.check_time(max(each * len(settings), 2 * sum(self.drawn.values())))
        except OutOfTime:
            had = [len(item.timings[setting].visits) if setting in item.timings else 0 for item, setting in settings]
            if min(had, default=0) >= min(LEAST, self.runner.plan.suite.limits.rounds):
                return True
            self.runner.check_time()
        return False

    def turns(self, case: str) -> Iterator[tuple[Live, tuple]]:
        for item in self.live:
            for setting in item.settings:
                if setting[0] == case and setting not in item.failed and item.child.alive:
                    yield item, setting

    def enough(self, item: Live, setting: tuple, number: int) -> bool:
        limits, timing = self.runner.plan.suite.limits, item.timings.get(setting)
        if timing is None or not timing.visits or number < min(3, limits.rounds):
            return False
        if timing.visits[-1].wall > LONG or timing.spent >= limits.serve:
            return True
        return number >= limits.rounds and not timing.unstable()

    def turn(self, item: Live, setting: tuple, number: int) -> bool:
        """One timed turn, with a look at the host before and after; False where it failed."""
        case, knobs = setting
        last = self.runner.last
        before = last if last is not None and time.monotonic() - last.at < FRESH else noise.look()
        try:
            answer = item.child.ask(
                "turn", case=case, knobs=[list(pair) for pair in knobs], seconds=self.runner.plan.suite.limits.turn, first=number
            )
        except Lost as lost:
            self.lost(item, [setting], lost)
            return False
        after = self.runner.last = noise.look()
        # The parent's own time is counted by `look`; the worker's comes with its answer.
        reason = noise.disturbed(before, after, own=after.own - before.own + answer["own"])
        if not reason and (item.trial.device, item.trial.threads) == ("cpu", 1) and item.trial.backend != "jax":
            reason = noise.descheduled(sum(answer["wall"]), sum(answer["cpu"]))
        item.timings.setdefault(setting, Timing()).add(answer, reason)
        return True

    def lost(self, item: Live, settings: list[tuple], lost: Lost) -> None:
        """A failed call ends its own settings. A lost worker ends the other settings of its trial too, unless it has measured some of
        them: what does not end a worker is then left to a second one."""
        if not isinstance(lost, Refused):
            others = [setting for setting in item.settings if setting not in settings and setting not in item.failed]
            if any(setting in item.timings for setting in others) and item.trial.key not in self.runner.second:
                item.left.update(others)
            else:
                settings = item.settings
        for setting in settings:
            item.failed.setdefault(setting, (lost.status, lost.reason))

    def ratios(self, case: str, done: set) -> None:
        """Ratios to the baseline's first knob setting, turn by turn, in the round just made."""
        if self.lead is None:
            return
        base = next((setting for setting in self.lead.settings if setting[0] == case), None)
        if (id(self.lead), base) not in done:
            return
        reference = self.lead.timings[base].visits[-1]
        for item in self.live:
            for setting in item.settings:
                if setting[0] == case and (id(item), setting) in done:
                    item.timings[setting].compare(reference)

    def finish(self) -> None:
        """Counts, memory and scores after the last timed call, then the records; what was cheap to draw first.

        One worker at a time may use the device, for what is counted and replayed there; scores are computed side by side.
        """
        device, start, count = threading.Lock(), self.runner.clock(), 0

        def job(item: Live) -> Iterator[tuple[Live, tuple, dict | None]]:
            if item.child.alive:
                try:
                    item.child.ask("warm", cores=self.runner.cores)
                except Lost as lost:
                    self.lost(item, item.settings, lost)
            for setting in sorted(item.settings, key=lambda setting: self.drawn.get(setting[0], 0.0)):
                recorded = self.runner._identity(item.trial, setting[0], dict(setting[1])) in self.runner.journal.done
                if not recorded and setting not in item.left:
                    yield item, setting, self.scores(item, setting, device)

        def use(found: tuple) -> None:
            nonlocal count
            count += 1
            self.record(*found)

        self.abreast(self.live, job, use)
        if count:
            self.runner.scored.append((self.runner.clock() - start) / count)

    def scores(self, item: Live, setting: tuple, device: threading.Lock) -> dict | None:
        """{"readings": ..., "notes": ...} of one setting; None where it failed."""
        case, knobs = setting
        if setting in item.failed:
            return None
        self.runner.progress.phase(item.trial, f"score {case}")
        try:
            with device:
                energy = self.runner.plan.suite.limits.energy
                counted = item.child.ask("finish", case=case, knobs=[list(pair) for pair in knobs], energy=energy, later=True)
            scored = item.child.ask("score", cores=self.runner.cores)
        except Lost as lost:
            self.lost(item, [setting], lost)
            return None
        return {"readings": {**counted["readings"], **scored["readings"]}, "notes": scored["notes"]}

    def record(self, item: Live, setting: tuple, answer: dict | None) -> None:
        trial, build, (case, knobs) = item.trial, item.build, setting
        shared = {"prepared": build["prepared"], "loaded": build["loaded"], "curve": build["curve"]}
        if answer is None:
            status, reason = item.failed[setting]
            self.runner.fail(trial, status, reason, item.child, settings=[setting], readings=build["readings"], **shared)
            return
        timing = item.timings[setting]
        readings = {**build["readings"], **timing.readings(answer["readings"]["serve.items"]["value"]), **answer["readings"]}
        readings |= derived.compile_reading(trial.backend, timing.compile, timing.first, readings["serve.latency"]["value"])
        roofs = self.runner.roofs.get(trial.device)
        readings |= derived.roof_readings(readings, roofs, dtype=trial.dtype)
        unstable = timing.unstable() if self.runner.plan.suite.limits.rounds >= SERIOUS else ""
        self.runner.write(
            trial, status="unstable" if unstable else "ok", reason=unstable, case=case, knobs=dict(knobs), readings=readings,
            samples=timing.samples(), baseline=self.lead.trial.method if self.lead is not None else "",
            notes=[*build["notes"], *answer["notes"]] or None, **shared,
        )  # fmt: skip
