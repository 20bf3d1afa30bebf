"""Measuring settings of one method, one after the other, for `effbench tune`: every setting is a record before the next one starts.

Tuning never sees what the choice is judged on. Where a quality comes from while tuning:
validation   the task's own validation split: the task's objective, where only params are chosen
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
from .supervisor import Child, Lost, apart

TURNS, LAST_TURNS = 3, 10  # timed turns of a trial, and of the held-out measurement
VALIDATION, HALVES, SEEDS = "validation", "halves", "seeds"


@dataclass
class Bench:
    """Measures (params, knobs) of one method at one case. `metrics` are what is wanted of a setting."""

    runner: Runner
    template: Trial
    case: str  # "" where the task has no serve phase
    metrics: tuple[str, ...]
    knobs_set: bool  # the curve of a build says nothing about knobs
    source: str = ""
    measured: int = 0  # settings measured now, not found in the journal
    seconds: float = 0.0  # of these, without builds where there is a serve phase
    _live: tuple[str, Child, dict] | None = field(default=None, repr=False)

    def __post_init__(self):
        task = self.runner.plan.registry.task(self.template.task)
        self.objective = f"quality.{task.objective}" if task.objective and not self.knobs_set else ""
        qualities = {name for name in self.metrics if name.startswith("quality.")}
        if self.objective and qualities <= {self.objective}:
            self.source = VALIDATION
        else:
            self.source = HALVES if self.case else SEEDS

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
        """The record of an earlier run, where it holds the qualities that are wanted."""
        (case, knobs), *_ = trial.settings()
        found = self.journal.done.get(self.runner._identity(trial, case, dict(knobs)))
        scored = self.runner.plan.registry.task(trial.task).metrics  # an objective of the validation split may have no score
        wanted = {name for name in self.metrics if name.removeprefix("quality.") in scored or trial.role == "tuning"}
        wanted = {name for name in wanted if name.startswith("quality.")}
        return found if found is None or found["status"] != "ok" or wanted <= set(found["readings"]) else None

    def measure(self, params: dict, knobs: dict) -> dict:
        """The record of a setting on what tuning may see, from the journal or measured now."""
        trial = self.trial(params, knobs)
        if found := self.known(trial):
            return found
        self.measured += 1
        return self._write(trial, *self._outcome(trial, "tuning", TURNS))

    def held_out(self, params: dict, knobs: dict) -> dict:
        """The record of the chosen setting on what tuning has not seen; measured once, and kept as a result."""
        seed = self.template.seed + 1 if self.source == SEEDS else None
        trial = self.trial(params, knobs, role="measure", seed=seed)
        if found := self.known(trial):
            return found
        return self._write(trial, *self._outcome(trial, "held-out" if self.source == HALVES else "", LAST_TURNS))

    def close(self, *, keep: bool = False) -> None:
        """End the worker; what it saved is removed unless another goal is to use the same build."""
        self._end()
        if not keep:
            shutil.rmtree(self.journal.folder / "artifacts", ignore_errors=True)

    # -- one setting --------------------------------------------------------------------------------------------------

    def _outcome(self, trial: Trial, part: str, turns: int) -> tuple[str, str, dict, dict]:
        """(status, reason, readings, shared fields of the record)."""
        try:
            if not self.case:
                readings, answer = self._build_only(trial, part)
            else:
                child, answer = self._built(trial)
                start = self.runner.clock()
                readings = answer["readings"] | self._serve(child, trial, part, turns)
                self.seconds += self.runner.clock() - start if part == "tuning" else 0.0
                if part == "tuning":
                    readings |= self._validation(answer["curve"])
        except Lost as lost:
            if self._live is not None and not self._live[1].alive:
                self._end()
            return lost.status, lost.reason, {}, {}
        return "ok", "", readings, {name: answer[name] for name in ("prepared", "loaded", "curve")}

    def _build_only(self, trial: Trial, part: str) -> tuple[dict, dict]:
        """Under the role "tuning" a worker loads nothing hidden; what has no validation value is scored, at the tuning seed."""
        start = self.runner.clock()
        scored = self.source == SEEDS or part != "tuning"
        child, answer = self.runner.built(replace(trial, role="measure" if scored else "tuning"))
        child.end()
        self.seconds += self.runner.clock() - start if part == "tuning" else 0.0
        if part != "tuning":
            return answer["readings"] | answer["quality"], answer
        found = self._validation(answer["curve"])
        if not scored and not found:
            self.source = SEEDS  # its build has no steps, so there is no curve
            return self._build_only(trial, part)
        return answer["readings"] | answer["quality"] | found, answer

    def _validation(self, curve: dict) -> dict:
        """The task's objective on its validation split, where the build gives it and no knob changes it."""
        name = self.objective.removeprefix("quality.")
        if not name or not curve.get(name):
            self.source = HALVES if self.source == VALIDATION and self.case else self.source
            return {}
        metric = self.runner.plan.registry.task(self.template.task).metrics.get(name)
        return {self.objective: reading(curve[name][-1], metric.unit if metric else "1", how="last value on the validation split")}

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
        with apart(trial.threads):
            for number in range(turns):
                timing.add(child.ask("turn", case=case, knobs=knobs, seconds=limits.turn, first=number))
        answer = child.ask("finish", case=case, knobs=knobs, energy=0.0, part=part)
        readings = {**timing.readings(answer["readings"]["serve.items"]["value"]), **answer["readings"]}
        cpu = readings["serve.latency"].get("cpu")
        readings["serve.cpu"] = reading(cpu, "s", how="median CPU time of a call", reason="no CPU time on this device")
        return readings

    def _all_knobs(self, pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Every knob by name: a live worker still has those of the setting before."""
        method = self.runner.plan.registry.method(self.template.task, self.template.method)
        return sorted({**{name: knob.default for name, knob in method.of_kind("knob").items()}, **dict(pairs)}.items())

    def _write(self, trial: Trial, status: str, reason: str, readings: dict, shared: dict) -> dict:
        (case, knobs), *_ = trial.settings()
        notes = ["quality on the held-out half of the samples"] if trial.role == "measure" and self.source == HALVES else None
        identity = self.runner._identity(trial, case, dict(knobs))
        self.journal.done.pop(identity, None)  # an earlier goal may have wanted less
        self.runner.write(
            trial, status=status, reason=reason, case=case, knobs=dict(knobs), readings=readings, notes=notes, **shared
        )  # fmt: skip
        return self.journal.done[identity]

    def _end(self) -> None:
        if self._live is not None:
            self._live[1].end()
            self._live = None


def check_ready(runner: Runner, trial: Trial) -> None:
    if reason := runner.materials.missing(trial.data):
        raise RunError(reason, where=f"data {trial.data.name}", remedy="Then repeat the command.")
