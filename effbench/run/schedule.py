"""Runs the groups of a plan: tuning, prepared material, builds, rounds, scores; writes records as soon as they are final.

Methods of one group are built one after the other, then their live workers are timed in rounds. Each round visits, case by
case, every (method, knobs) in a seeded random order, so that a ratio compares two turns that lie close in time.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..api.errors import RecordError, RunError
from ..api.record import identity
from ..measure import noise
from ..plan.plan import Group, Plan
from ..plan.trial import Trial
from . import assemble, derived
from .assemble import Provenance, Timing
from .journal import Journal, full
from .materials import Materials
from .opening import opening
from .progress import Progress
from .supervisor import Child, Lost, Nurseries, Refused, apart, plain
from .tuning import choose

LIVE = 8  # methods of a group that are in memory at once; larger groups are timed in parts, each beside the baseline
SERIOUS = 10  # rounds from which seconds are meant to be read: with fewer (smoke) nothing is called unstable
LONG = 2.0  # s; a call above this is timed three times
FRESH = 0.005  # s; how old a look before a turn may be
RESERVE = 5.0  # s kept back by --within for scores and records
LAST = 2.0  # s before the end of --within at which a build that is on is ended
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
    timings: dict[tuple, Timing] = field(default_factory=dict)
    failed: dict[tuple, tuple[str, str]] = field(default_factory=dict)


@dataclass
class Runner:
    plan: Plan
    journal: Journal
    origin: Provenance
    materials: Materials
    progress: Progress
    nurseries: Nurseries
    until: float | None = None
    last: noise.Sample | None = None  # the look after one turn serves as the one before the next
    roofs: dict[str, dict] = field(default_factory=dict)  # device -> measured roofs, where this machine was calibrated
    clock: Callable[[], float] = time.monotonic
    scored: list[float] = field(default_factory=list)  # s that the last part of each setting took so far

    def run(self) -> None:
        for group in self.plan.groups:
            self.run_group(group)

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def done(self, trial: Trial) -> bool:
        return all(self._identity(trial, case, dict(knobs)) in self.journal.done for case, knobs in trial.settings())

    def _identity(self, trial: Trial, case: str, knobs: dict) -> tuple:
        return identity(
            {"role": trial.role, "key": trial.key, "case": case, "knobs": knobs, "environment": self.origin.environment}
        )

    def check_time(self, needed: float = 0.0) -> None:
        if self.until is not None and self.clock() + needed + RESERVE > self.until:
            raise OutOfTime

    def allowed(self) -> float:
        """Seconds a trial may use: its limit, and never past --within."""
        limit = self.plan.suite.limits.seconds
        return limit if self.until is None else max(1.0, min(limit, self.until - self.clock() - LAST))

    def write(self, trial: Trial, **parts) -> None:
        found = assemble.record(trial, self.origin, data_digest=self.materials.digest(trial.data, trial.seed), **parts)
        try:
            self.journal.write(found)
        except (RecordError, ValueError, TypeError) as error:
            # What a method put into its readings may not end the run.
            reason = f"its record cannot be written: {plain(str(error), 300)}"
            kept = {name: parts[name] for name in ("case", "knobs") if name in parts}
            found = assemble.record(trial, self.origin, status="error", reason=reason, **kept)
            self.journal.write(found)
        self.progress.finished(trial, found)

    def fail(self, trial: Trial, status: str, reason: str, child: Child | None = None, *, settings=None, **parts) -> None:
        """The same status for every case and knob setting that has no record yet."""
        if self.until is not None and status == "timeout" and self.clock() > self.until - LAST - 1.0:
            raise OutOfTime  # it was --within that ended it, not its own deadline
        if status == "full":
            status = "error"
            for folder in (self.journal.folder, self.materials.cache):
                if problem := full(folder):
                    raise RunError(
                        f"cannot write ({problem}); {len(self.journal.done)} finished records are safe", where=str(folder),
                        remedy="Free space and start the same command again: it resumes.",
                    )  # fmt: skip
        if child is not None and status not in ("skipped", "wrong") and child.log:
            self.journal.write_log(trial.key, child.tail())
        for case, knobs in settings or trial.settings():
            self.write(trial, status=status, reason=reason, case=case, knobs=dict(knobs), **parts)

    # -- groups -------------------------------------------------------------------------------------------------------

    def run_group(self, group: Group) -> None:
        for trial, reason in group.skipped:
            if not self.done(trial):
                self.fail(trial, "skipped", reason)
        trials = [self.tuned(group, trial) for trial in group.trials]
        waiting = [trial for trial in trials if not self.done(trial)]
        for trial in trials:
            if trial not in waiting:
                self.progress.known(trial)
        if not waiting:
            return
        if reason := self.materials.missing(group.data):
            for trial in waiting:
                self.fail(trial, "skipped", reason)
            return
        if not group.serve:
            for trial in waiting:
                self.check_time()
                self.run_build_only(trial)
            return
        # The baseline leads every part of the group; it is measured again where only others are missing.
        baseline = trials[0]
        rest = [trial for trial in waiting if trial is not baseline]
        parts = [rest[i : i + LIVE - 1] for i in range(0, len(rest), LIVE - 1)] or [[]]
        lead: Live | None = None
        try:
            for part in parts:
                self.check_time()
                lead = self.run_part(group, baseline, lead, part, last=part is parts[-1])
        finally:
            if lead is not None:
                lead.child.end()

    def tuned(self, group: Group, trial: Trial) -> Trial:
        """The trial at the settings that its tuning trials chose; unchanged where none are asked for."""
        trials = group.tuning.get(trial.method)
        if not trials:
            return trial
        for tuning in trials:
            if not self.done(tuning):
                self.check_time()
                if reason := self.materials.missing(group.data):
                    self.fail(tuning, "skipped", reason)
                else:
                    self.run_build_only(tuning)
        found = [self.journal.done.get(self._identity(tuning, "", {})) for tuning in trials]
        return choose(self.plan, group.task, trial, [item for item in found if item])

    # -- one trial ----------------------------------------------------------------------------------------------------

    def start(self, trial: Trial) -> Child:
        nursery = self.nurseries.get(trial.backend, trial.device, trial.threads)
        # CUDA maps far more than it uses, so the limit is only kept on the CPU.
        memory = self.plan.suite.limits.memory if trial.device == "cpu" else 0
        child = Child(nursery, memory, self.allowed(), progress=lambda text: self.progress.detail(trial, text))
        try:
            child.ask("open", **opening(self.plan.registry, trial))
        except Lost:
            child.end()
            raise
        return child

    def built(self, trial: Trial) -> tuple[Child, dict]:
        """A worker with the method built, or loaded from what an interrupted run saved."""
        self.progress.phase(trial, "build")
        prepared = self.materials.prepared(trial, self)
        child = self.start(trial)
        artifact = self.journal.folder / "artifacts" / trial.key
        event = self.journal.built.get(trial.key)
        restore = bool(event and event.get("saved") and artifact.is_dir())
        notes = []
        if restore:
            try:
                child.ask("build", prepared=prepared["path"], artifact=str(artifact), restore=True)
            except Lost as lost:
                child.end()
                notes.append(f"what an interrupted run had saved could not be loaded ({lost.reason[:160]}); built again")
                restore, child = False, self.start(trial)
        try:
            if not restore:
                shutil.rmtree(artifact, ignore_errors=True)
                answer = child.ask("build", prepared=prepared["path"], artifact=str(artifact) if trial.cases else "", restore=False)
        except Lost as lost:
            child.end()
            lost.child = child
            raise
        if restore:
            answer = event["answer"]
        elif trial.cases and artifact.is_dir() and any(artifact.iterdir()):
            self.journal.write_event({"key": trial.key, "saved": True, "answer": answer})
        answer["notes"] = [*answer["notes"], *notes]
        answer["prepared"] = {k: v for k, v in prepared.items() if k != "path"}
        return child, answer

    def run_build_only(self, trial: Trial) -> None:
        try:
            child, answer = self.built(trial)
        except Lost as lost:
            self.fail(trial, lost.status, lost.reason, getattr(lost, "child", None))
            return
        child.end()
        readings = {**answer["readings"], **answer["quality"]}
        self.write(
            trial,
            readings=readings,
            curve=answer["curve"],
            prepared=answer["prepared"],
            loaded=answer["loaded"],
            notes=answer["notes"],
        )

    # -- rounds -------------------------------------------------------------------------------------------------------

    def run_part(self, group: Group, baseline: Trial, lead: Live | None, part: list[Trial], *, last: bool) -> Live | None:
        live: list[Live] = []
        try:
            if lead is None:
                lead = self.open_live(baseline)
            else:
                lead.timings.clear()
            if lead is not None:
                live.append(lead)
            for trial in part:
                self.check_time()
                found = self.open_live(trial)
                if found is not None:
                    live.append(found)
            if live:
                with apart(max(item.trial.threads for item in live)):
                    self.rounds(group, live, lead)
                for item in live:
                    self.finish(item, lead)
        finally:
            for item in live:
                if item is not lead:
                    item.child.end()
                # What an interrupted run saved stays: the next one loads it instead of building again.
                if self.done(item.trial) and (item is not lead or last):
                    shutil.rmtree(self.journal.folder / "artifacts" / item.trial.key, ignore_errors=True)
        return lead if lead is not None and lead.child.alive else None

    def open_live(self, trial: Trial) -> Live | None:
        child = None
        try:
            child, answer = self.built(trial)
            child.ask("open_serve")
        except Lost as lost:
            child = child or getattr(lost, "child", None)
            self.fail(trial, lost.status, lost.reason, child)
            if child is not None:
                child.end()
            return None
        return Live(trial, child, answer)

    def rounds(self, group: Group, live: list[Live], lead: Live | None) -> None:
        """At least `limits.rounds` rounds, half as many again for settings whose turns were disturbed. Where --within is nearly over
        they end early, once every setting has had LEAST turns: readings say how many there were."""
        limits = self.plan.suite.limits
        rng = random.Random(f"{group.seed}-{group.task.name}-{group.data}")
        extra = limits.rounds // 2 if limits.rounds >= SERIOUS else 0
        for number in range(limits.rounds + extra):
            open_cases = list(dict.fromkeys(case for item in live for case, _ in item.trial.settings()))
            rng.shuffle(open_cases)
            visited = False
            for case in open_cases:
                turns = list(self.turns(live, case, lead))
                if all(self.enough(item, setting, number) for item, setting in turns):
                    continue
                if self.short(live):
                    return
                rng.shuffle(turns)
                visited = True
                done = {(id(item), setting) for item, setting in turns if self.turn(item, setting, number)}
                self.ratios(live, lead, case, done)
            if not visited:
                break
            self.progress.round(group, min(number + 1, limits.rounds), limits.rounds)

    def short(self, live: list[Live]) -> bool:
        """Whether the time left is needed for scores. OutOfTime where too little has been measured for any."""
        settings = [(item, setting) for item in live for setting in item.trial.settings() if setting not in item.failed]
        each = max(SCORE, *self.scored[-20:]) if self.scored else SCORE
        try:
            self.check_time(each * len(settings))
        except OutOfTime:
            had = [len(item.timings[setting].visits) if setting in item.timings else 0 for item, setting in settings]
            if min(had, default=0) >= min(LEAST, self.plan.suite.limits.rounds):
                return True
            self.check_time()
        return False

    def turns(self, live: list[Live], case: str, lead: Live | None) -> Iterator[tuple[Live, tuple]]:
        for item in live:
            for setting in item.trial.settings():
                if setting[0] == case and setting not in item.failed and item.child.alive:
                    yield item, setting

    def enough(self, item: Live, setting: tuple, number: int) -> bool:
        limits, timing = self.plan.suite.limits, item.timings.get(setting)
        if timing is None or not timing.visits or number < min(3, limits.rounds):
            return False
        if timing.visits[-1].wall > LONG or timing.spent >= limits.serve:
            return True
        return number >= limits.rounds and not timing.unstable()

    def turn(self, item: Live, setting: tuple, number: int) -> bool:
        """One timed turn, with a look at the host before and after; False where it failed."""
        case, knobs = setting
        before = self.last if self.last is not None and time.monotonic() - self.last.at < FRESH else noise.look()
        try:
            answer = item.child.ask(
                "turn", case=case, knobs=[list(pair) for pair in knobs], seconds=self.plan.suite.limits.turn, first=number
            )
        except Lost as lost:
            self.lost(item, setting, lost)
            return False
        after = self.last = noise.look()
        # The parent's own time is counted by `look`; the worker's comes with its answer.
        reason = noise.disturbed(before, after, own=after.own - before.own + answer["own"])
        if not reason and (item.trial.device, item.trial.threads) == ("cpu", 1) and item.trial.backend != "jax":
            reason = noise.descheduled(sum(answer["wall"]), sum(answer["cpu"]))
        item.timings.setdefault(setting, Timing()).add(answer, reason)
        return True

    def lost(self, item: Live, setting: tuple, lost: Lost) -> None:
        """A failed call ends its own (case, knobs); a lost worker ends all that are left of its trial."""
        if isinstance(lost, Refused):
            item.failed[setting] = (lost.status, lost.reason)
            return
        for other in item.trial.settings():
            item.failed.setdefault(other, (lost.status, lost.reason))

    def ratios(self, live: list[Live], lead: Live | None, case: str, done: set) -> None:
        """Ratios to the baseline's first knob setting, turn by turn, in the round just made."""
        if lead is None:
            return
        base = next((setting for setting in lead.trial.settings() if setting[0] == case), None)
        if (id(lead), base) not in done:
            return
        reference = lead.timings[base].visits[-1]
        for item in live:
            for setting in item.trial.settings():
                if setting[0] == case and (id(item), setting) in done:
                    item.timings[setting].compare(reference)

    def finish(self, item: Live, lead: Live | None) -> None:
        """Counts, memory and scores after the last timed call, then the records."""
        trial, build = item.trial, item.build
        shared = {"prepared": build["prepared"], "loaded": build["loaded"], "curve": build["curve"]}
        baseline = lead.trial.method if lead is not None else ""
        for setting in trial.settings():
            case, knobs = setting
            if self._identity(trial, case, dict(knobs)) in self.journal.done:
                continue
            if setting not in item.failed:
                self.progress.phase(trial, f"score {case}")
                start = self.clock()
                try:
                    answer = item.child.ask(
                        "finish", case=case, knobs=[list(pair) for pair in knobs], energy=self.plan.suite.limits.energy
                    )
                except Lost as lost:
                    self.lost(item, setting, lost)
                self.scored.append(self.clock() - start)
            if setting in item.failed:
                status, reason = item.failed[setting]
                self.fail(trial, status, reason, item.child, settings=[setting], readings=build["readings"], **shared)
                continue
            timing = item.timings[setting]
            readings = {**build["readings"], **timing.readings(answer["readings"]["serve.items"]["value"]), **answer["readings"]}
            readings |= derived.compile_reading(trial.backend, timing.compile, timing.first, readings["serve.latency"]["value"])
            roofs = self.roofs.get(trial.device)
            readings |= derived.roof_readings(readings, roofs, dtype=trial.dtype, key=self.origin.environment)
            unstable = timing.unstable() if self.plan.suite.limits.rounds >= SERIOUS else ""
            self.write(
                trial, status="unstable" if unstable else "ok", reason=unstable, case=case, knobs=dict(knobs), readings=readings,
                samples=timing.samples(), baseline=baseline, notes=[*build["notes"], *answer["notes"]] or None, **shared,
            )  # fmt: skip
