"""Runs the groups of a plan: tuning, prepared material, builds, rounds, scores; writes records as soon as they are final.

Methods of one group are built one after the other, then their live workers are timed in rounds (`rounds.py`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..api.errors import RecordError, RunError
from ..api.record import identity
from ..measure import noise
from ..plan.plan import Group, Plan
from ..plan.trial import Trial
from . import assemble
from .abreast import usable_cores
from .assemble import Provenance
from .journal import Journal, full
from .materials import Materials
from .opening import opening
from .progress import Progress
from .rounds import LONG as LONG  # for pairs.py: its text is in the digest of the records of tests/power
from .rounds import Live, OutOfTime, Part
from .supervisor import Child, Lost, Nurseries, apart, plain
from .tuning import choose

LIVE = 8  # methods of a group that are in memory at once; larger groups are timed in parts, each beside the baseline
RESERVE = 5.0  # s kept back by --within for scores and records
LAST = 2.0  # s before the end of --within at which a build that is on is ended


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
    scored: list[float] = field(default_factory=list)  # s that finishing a setting took, by part of a group
    cores: list[int] = field(default_factory=usable_cores)
    second: set[str] = field(default_factory=set)  # keys of trials that have had a second worker

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
                # A worker that died in one setting had measured others: they are measured again without it.
                again = [trial for trial in part if not self.done(trial)]
                if again or not self.done(baseline):
                    self.second |= {trial.key for trial in (baseline, *again)}
                    lead = self.run_part(group, baseline, lead, again, last=part is parts[-1])
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
        until = None if self.until is None else max(self.until - LAST, time.monotonic() + 1.0)
        child = Child(nursery, memory, self.allowed(), lambda text: self.progress.detail(trial, text), until)
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
                lead = self.open_live(baseline, again=True)
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
                timed = Part(self, group, live, lead)
                with apart(max(item.trial.threads for item in live)):
                    timed.rounds()
                timed.finish()
        finally:
            for item in live:
                if item is not lead:
                    item.child.end()
                # What an interrupted run saved stays: the next one loads it instead of building again.
                if self.done(item.trial) and (item is not lead or last):
                    shutil.rmtree(self.journal.folder / "artifacts" / item.trial.key, ignore_errors=True)
        return lead if lead is not None and lead.child.alive else None

    def open_live(self, trial: Trial, *, again: bool = False) -> Live | None:
        """A worker for what has no record yet; `again`: and for what was measured, as a baseline for others. None where it could not
        be opened, or there is nothing that it could measure."""
        child = None
        records = {
            setting: self.journal.done.get(self._identity(trial, setting[0], dict(setting[1]))) for setting in trial.settings()
        }
        settings = [setting for setting, found in records.items() if not found or (again and found["status"] in ("ok", "unstable"))]
        if not settings:
            return None
        try:
            child, answer = self.built(trial)
            child.ask("open_serve")
        except Lost as lost:
            child = child or getattr(lost, "child", None)
            if missing := [setting for setting in settings if not records[setting]]:
                self.fail(trial, lost.status, lost.reason, child, settings=missing)
            if child is not None:
                child.end()
            return None
        return Live(trial, child, answer, settings)
