"""Measuring settings of one method, one after the other, for `effbench tune`: every setting is a record before the next one starts.

Tuning never sees what the choice is judged on. Where quality comes from, in this order:
validation   the task's own validation split, where the wanted quality is the task's objective and only params are chosen
halves       one random half of the scored samples; the other half is held out
seeds        the task gives one number: it is tuned at the seed, and held out at the next one
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..api.errors import RunError
from ..api.record import reading
from ..plan import plan as plans
from ..plan.trial import Trial
from .assemble import Timing
from .journal import Journal
from .schedule import Runner
from .supervisor import Child, Lost

TURNS, LAST_TURNS = 3, 10  # timed turns of a trial, and of the held-out measurement
VALIDATION, HALVES, SEEDS = "validation", "halves", "seeds"


@dataclass
class Bench:
    """Measures (params, knobs) of one method at one case. `metrics` are what is wanted of a setting, `timed` whether seconds are."""

    runner: Runner
    template: Trial
    case: str
    metrics: tuple[str, ...]
    timed: bool
    knobs_vary: bool
    source: str = HALVES
    measured: int = 0  # settings measured now, not found in the journal
    seconds: float = 0.0  # of these, without builds
    _live: tuple[str, Child, dict] | None = field(default=None, repr=False)

    def __post_init__(self):
        task = self.runner.plan.registry.task(self.template.task)
        wanted = [name for name in self.metrics if name.startswith("quality.")]
        if not self.knobs_vary and task.objective and wanted == [f"quality.{task.objective}"]:
            self.source = VALIDATION
        elif not self.case:
            self.source = SEEDS

    @property
    def journal(self) -> Journal:
        return self.runner.journal

    def trial(self, params: dict, knobs: dict, *, role: str = "tuning", seed: int | None = None) -> Trial:
        """A trial of its own for a setting, with the content key that decides whether it was measured already."""
        plan, base = self.runner.plan, self.template
        task, method = plan.registry.task(base.task), plan.registry.method(base.task, base.method)
        return plans.build(
            plan.suite, plan.registry, task, method, params={**base.params, **params}, knobs=(dict(knobs),),
            cases=(self.case,) if self.case else (), data=base.data, device=base.device, seed=base.seed if seed is None else seed,
            budget=base.budget, like=base.like, role=role,
        )  # fmt: skip

    def known(self, trial: Trial) -> dict | None:
        """The record of an earlier run, where it holds all that is wanted."""
        (case, knobs), *_ = trial.settings()
        found = self.journal.done.get(self.runner._identity(trial, case, dict(knobs)))
        if found is not None and found["status"] in ("ok", "unstable") and not set(self.metrics) <= set(found["readings"]):
            return None
        return found

    def measure(self, params: dict, knobs: dict) -> dict:
        """The record of a setting on what tuning may see, from the journal or measured now."""
        trial = self.trial(params, knobs)
        if found := self.known(trial):
            return found
        self.runner.check_time()
        self.measured += 1
        start = self.runner.clock()
        return self._write(trial, *self._outcome(trial, "tuning", TURNS, start))

    def held_out(self, params: dict, knobs: dict) -> dict:
        """The record of the chosen setting on what tuning has not seen; measured once, and kept as a result."""
        seed = self.template.seed + 1 if self.source == SEEDS else None
        trial = self.trial(params, knobs, role="measure", seed=seed)
        if found := self.known(trial):
            return found
        part = "held-out" if self.source == HALVES else ""
        return self._write(trial, *self._outcome(trial, part, LAST_TURNS, self.runner.clock()))

    def close(self, *, keep: bool = False) -> None:
        """End the worker; what it saved is removed unless another goal is to use the same build."""
        self._end()
        if not keep:
            shutil.rmtree(self.journal.folder / "artifacts", ignore_errors=True)

    # -- one setting --------------------------------------------------------------------------------------------------

    def _outcome(self, trial: Trial, part: str, turns: int, start: float) -> tuple[str, str, dict, dict]:
        """(status, reason, readings, shared fields of the record)."""
        try:
            if not self.case or (self.source == VALIDATION and part == "tuning" and not self._serving()):
                return self._build_only(trial, part)
            child, answer = self._built(trial)
            start = self.runner.clock()
            readings = self._serve(child, trial, "" if self.source == VALIDATION else part, turns)
            if part == "tuning":
                self.seconds += self.runner.clock() - start
        except Lost as lost:
            if self._live is not None and not self._live[1].alive:
                self._end()
            return lost.status, lost.reason, {}, {}
        shared = {name: answer[name] for name in ("prepared", "loaded", "curve")}
        readings = {**answer["readings"], **readings}
        if self.source == VALIDATION and part == "tuning":
            readings |= self._validation(answer["curve"])
        return "ok", "", readings, shared

    def _serving(self) -> bool:
        """Whether anything that is wanted needs calls."""
        return any(name.startswith("serve.") for name in self.metrics)

    def _build_only(self, trial: Trial, part: str) -> tuple[str, str, dict, dict]:
        self._end()
        # Under the role "tuning" a worker loads nothing hidden; a task that scores with one number has nothing else to say.
        scored = self.source == SEEDS or part != "tuning"
        opened = replace(trial, role="measure" if scored else "tuning")
        child, answer = self.runner.built(opened)
        child.end()
        readings = {**answer["readings"], **answer["quality"]}
        if not scored:
            readings |= self._validation(answer["curve"])
        return "ok", "", readings, {name: answer[name] for name in ("prepared", "loaded", "curve")}

    def _validation(self, curve: dict) -> dict:
        task = self.runner.plan.registry.task(self.template.task)
        column, unit = curve.get(task.objective), task.metrics[task.objective].unit if task.objective in task.metrics else "1"
        if not column:
            raise Lost("error", f"its build gives no curve, so no '{task.objective}' on validation data")
        return {f"quality.{task.objective}": reading(column[-1], unit, how="last value on the validation split")}

    def _built(self, trial: Trial) -> tuple[Child, dict]:
        """A live worker with the method built; the last one is kept, since most settings differ in knobs alone."""
        key = json.dumps([trial.params, trial.seed], sort_keys=True)
        if self._live is None or self._live[0] != key or not self._live[1].alive:
            self._end()
            # Trials of both roles share one build, and what it saved.
            child, answer = self.runner.built(replace(trial, role="tuning", key=self.trial(trial.params, {}, seed=trial.seed).key))
            self._live = (key, child, answer)
            child.ask("open_serve")
        self._live[1].used = 0.0  # each setting has the whole deadline
        return self._live[1], self._live[2]

    def _serve(self, child: Child, trial: Trial, part: str, turns: int) -> dict:
        (case, pairs), *_ = trial.settings()
        knobs, timing, limits = [list(pair) for pair in self._all_knobs(pairs)], Timing(), self.runner.plan.suite.limits
        for number in range(turns if self.timed else 0):
            timing.add(child.ask("turn", case=case, knobs=knobs, seconds=limits.turn, first=number))
        answer = child.ask("finish", case=case, knobs=knobs, energy=0.0, part=part)
        readings = answer["readings"]
        if self.timed:
            readings = {**timing.readings(readings["serve.items"]["value"]), **readings}
            cpu = readings["serve.latency"].get("cpu")
            readings["serve.cpu"] = reading(cpu, "s", how="median CPU time of a call", reason="no CPU time on this device")
        return readings

    def _all_knobs(self, pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Every knob by name: a live worker still has those of the setting before."""
        method = self.runner.plan.registry.method(self.template.task, self.template.method)
        return sorted({**{name: knob.default for name, knob in method.of_kind("knob").items()}, **dict(pairs)}.items())

    def _write(self, trial: Trial, status: str, reason: str, readings: dict, shared: dict) -> dict:
        (case, knobs), *_ = trial.settings()
        notes = {"measure": "quality on the held-out half of the samples"}.get(trial.role) if self.source == HALVES else None
        if status == "ok":
            missing = [name for name in self.metrics if readings.get(name, {}).get("value") is None]
            for name in missing:
                readings.setdefault(name, reading(None, "1", reason=f"not among the readings: {', '.join(sorted(readings))}"[:600]))
        identity = self.runner._identity(trial, case, dict(knobs))
        self.journal.done.pop(identity, None)  # an earlier goal may have wanted less
        self.runner.write(
            trial, status=status, reason=reason, case=case, knobs=dict(knobs), readings=readings, notes=[notes] if notes else None,
            **shared,
        )  # fmt: skip
        return self.journal.done[identity]

    def _end(self) -> None:
        if self._live is not None:
            self._live[1].end()
            self._live = None


def check_ready(runner: Runner, trial: Trial) -> None:
    if reason := runner.materials.missing(trial.data):
        raise RunError(reason, where=f"data {trial.data.name}", remedy="Then repeat the command.")
