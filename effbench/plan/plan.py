"""From a suite to groups of trials. Everything a person can get wrong is said here, before anything starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from ..api.errors import SuiteError, suggest
from ..api.values import Budget, Data
from ..backends import SUPPORTED
from . import suite as suites
from .registry import Registry, TaskInfo
from .suite import RunSpec, Suite
from .trial import Trial, content_key


@dataclass
class Group:
    """Trials that are measured together, the baseline first."""

    task: TaskInfo
    data: Data
    device: str
    seed: int
    trials: list[Trial]
    skipped: list[tuple[Trial, str]] = field(default_factory=list)
    tuning: dict[str, list[Trial]] = field(default_factory=dict)  # method -> tuning trials to run first
    serve: bool = True


@dataclass
class Plan:
    suite: Suite
    registry: Registry
    groups: list[Group]
    needs: tuple[str, ...]  # data sets that must be in the cache
    notes: list[str] = field(default_factory=list)

    @property
    def trials(self) -> list[Trial]:
        return [trial for group in self.groups for trial in [*group.trials, *(t for ts in group.tuning.values() for t in ts)]]


def select(suite: Suite, registry: Registry, *, tasks: Iterable[str] = (), methods: Iterable[str] = ()) -> tuple[RunSpec, ...]:
    """The runs of a suite that match the selection on the command line. An unknown or empty selection is an error."""
    tasks, methods = list(tasks), list(methods)
    in_suite = {run.task for run in suite.runs}
    for name in tasks:
        registry.task(name, "--task")
        if name not in in_suite:
            raise SuiteError(f"suite '{suite.name}' has no run of task '{name}'", where="--task", remedy=suggest(name, in_suite))
    chosen = [run for run in suite.runs if not tasks or run.task in tasks]
    if methods:
        known = {name for run in chosen for name in _methods(run, registry, suite.where)}
        for name in methods:
            if name not in known:
                raise SuiteError(f"suite '{suite.name}' runs no method '{name}'", where="--method", remedy=suggest(name, known))
        kept = []
        for run in chosen:
            names = tuple(name for name in _methods(run, registry, suite.where) if name in methods)
            if names:
                kept.append(replace(run, methods=names))
        chosen = kept
    if not chosen:
        raise SuiteError("the selection leaves nothing to run", where=suite.where, remedy="Drop --task or --method.")
    return tuple(chosen)


def _methods(run: RunSpec, registry: Registry, where: str) -> list[str]:
    task = registry.task(run.task, where)
    known = registry.methods_of(task.name)
    names: dict[str, None] = {}
    for name in run.methods:
        if name == "*":
            names.update(dict.fromkeys(known))
        else:
            names[registry.method(task.name, name, f"{where}: methods").name] = None
    if not names:
        raise SuiteError(
            f"task '{task.name}' has no methods: this run selects nothing", where=where, remedy="Add a method to its area."
        )
    return list(names)


def make(suite: Suite, registry: Registry, *, tasks=(), methods=(), data=(), only=(), tuned=None) -> Plan:
    """Expand a suite, with `data` instead of that of its runs where it is not empty, and of its cases `only` some.

    `tuned(task, method, data, budget) -> (params, tuning dict) | None` gives committed settings.
    """
    groups: list[Group] = []
    needs: dict[str, None] = {}
    notes: list[str] = []
    known: dict[str, None] = {}  # cases that the selected runs have
    for run in select(suite, registry, tasks=tasks, methods=methods):
        where = f"{suite.where}: run of '{run.task}'"
        task = registry.task(run.task, where)
        chosen = _methods(run, registry, where)
        _check_settings(run, registry, task, suite.where)
        cases = _cases(run, task, suite.size, where)
        known.update(dict.fromkeys(cases))
        if only and not (cases := tuple(case for case in cases if case in only)):
            continue
        for text in data or run.data or (task.data[0].name,):
            found = suites.parse_data(text, task.data, "--data" if data else f"{where}: data")
            needs.update(dict.fromkeys(found.needs))
            for device in suite.devices:
                for seed in suite.seeds:
                    for budget in run.budgets:
                        group = _group(suite, run, registry, task, chosen, found, device, seed, budget, cases, tuned, notes)
                        if group.trials or group.skipped:
                            groups.append(group)
    for name in only:
        if name not in known:
            raise SuiteError(f"suite '{suite.name}' has no case '{name}' there", where="--case", remedy=suggest(name, known))
    if not any(group.trials or group.skipped for group in groups):
        raise SuiteError("the suite selects no trial", where=suite.where, remedy="Look at methods, devices and seeds.")
    return Plan(suite, registry, groups, tuple(needs), notes)


def _check_settings(run: RunSpec, registry: Registry, task: TaskInfo, where: str) -> None:
    """Settings for a method that exists nowhere are a mistake; for one of another task they are that task's business."""
    everything = {name for _, name in registry.methods}
    for kind in ("params", "knobs"):
        for name, values in getattr(run, kind).items():
            if name not in everything:
                raise SuiteError(f"unknown method '{name}'", where=f"{where}: [{kind}.{name}]", remedy=suggest(name, everything))
            if (task.name, name) in registry.methods:
                suites.expand(values, registry.method(task.name, name).of_kind(kind[:-1]), f"{where}: [{kind}.{name}]")


def _cases(run: RunSpec, task: TaskInfo, size: str, where: str) -> tuple[str, ...]:
    if "serve" not in task.phases:
        if run.cases:
            raise SuiteError(f"task '{task.name}' has no serve phase, so no cases", where=where, remedy="Leave cases out.")
        return ()
    known = [case.name for case in task.cases]
    for name in run.cases:
        if name not in known:
            raise SuiteError(f"task '{task.name}' has no case '{name}'", where=f"{where}: cases", remedy=suggest(name, known))
    return run.cases or tuple(case.name for case in task.cases if size in case.sizes)


def _group(suite, run, registry, task, chosen, data, device, seed, budget, cases, tuned, notes) -> Group:
    group = Group(task, data, device, seed, [], serve="serve" in task.phases)
    baseline = suite.baseline if suite.baseline in chosen else next((b for b in task.baselines if b in chosen), "")
    for name in sorted(chosen, key=lambda name: name != baseline):
        method = registry.method(task.name, name)
        # One seed is enough for it, but ratios of every seed are taken to one baseline, in the same rounds.
        if method.deterministic and seed != suite.seeds[0] and not (group.serve and name == baseline):
            continue
        knobs = tuple(suites.expand(run.knobs.get(name, {}), method.of_kind("knob"), f"[knobs.{name}]"))
        like = _like(run, registry, task, budget, data, tuned, f"{suite.where}: budget")
        for params in suites.expand(run.params.get(name, {}), method.of_kind("param"), f"[params.{name}]"):
            tuning: dict = {}
            wants_tuning = run.tune and any(setting.tune is not None for setting in method.settings.values())
            if wants_tuning:
                group.tuning[name] = tuning_trials(
                    suite, registry, task, method, params, data, device, suite.seeds[0], budget, like, run.tune
                )
                found = None if run.search else tuned and tuned(task.name, name, str(data), budget, device)
                if found:
                    params, tuning = {**params, **found[0]}, found[1]
                    del group.tuning[name]
                elif not run.search:
                    del group.tuning[name]
                    notes.append(
                        f"{task.name}/{name}: no committed tuning record for {data} under {describe(budget)}; its defaults are used"
                    )
            trial = build(
                suite, registry, task, method, params=params, knobs=knobs, cases=cases, data=data, device=device, seed=seed,
                budget=budget, like=like, tuning=tuning,
            )  # fmt: skip
            if device not in SUPPORTED[method.backend]:
                group.skipped.append((trial, f"backend {method.backend} has no device '{device}'"))
            else:
                group.trials.append(trial)
    return group


def describe(budget: Budget | None) -> str:
    if budget is None:
        return "no budget"
    amount = next(f"{name}={value:g}" for name, value in asdict(budget).items() if name != "like" and value is not None)
    return f"budget {amount}" + (f" like {budget.like}" if budget.like else "")


def _like(run: RunSpec, registry, task, budget, data, tuned, where) -> tuple[str, dict] | None:
    """The method whose FLOPs a budget copies, at the settings under which it is itself measured in equal steps."""
    if budget is None or not budget.like:
        return None
    info = registry.method(task.name, budget.like, where)
    params = suites.expand(run.params.get(budget.like, {}), info.of_kind("param"), where)[0]
    found = tuned and tuned(task.name, budget.like, str(data), Budget(steps=budget.steps), "")
    return budget.like, {**params, **found[0]} if found else params


def build(
    suite, registry, task, method, *, params, knobs, cases, data, device, seed, budget, like, tuning=None, role="measure"
) -> Trial:
    full = {name: params.get(name, setting.default) for name, setting in method.of_kind("param").items()}
    files = {"files": stamps} if (stamps := _stamps(data)) else {}
    key = content_key(
        registry, task, method, **files, data=data, size=suite.size, params=full, budget=budget, like=like, seed=seed, dtype=suite.dtype,
        threads=suite.threads, device=device, role=role,
    )  # fmt: skip
    return Trial(
        key, task.area, task.name, task.version, method.name, method.version, method.backend, data, suite.size, seed, device,
        suite.threads, suite.dtype, full, budget, like, cases, knobs, role, tuning or {}, task.replicates,
    )  # fmt: skip


def _stamps(data: Data) -> dict[str, list[int]]:
    """Size and time of the files that data arguments name: a file that was changed makes another trial."""
    found = {}
    for name, path in suites.files(data.args).items():
        with contextlib.suppress(OSError):
            stat = os.stat(path)
            found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def tuning_trials(suite, registry, task, method, params, data, device, seed, budget, like, count) -> list[Trial]:
    """The same number of settings for every arm: the defaults first, then draws from the tuning ranges.

    A range is cut into as many equal parts as there are draws, and each part has one. The draws follow from seed and name of the
    setting alone: arms that share a setting try the same values of it, and no arm wins or loses by the luck of its draws.
    """
    ranges = {
        name: (setting.tune, _places(seed, name, count - 1))
        for name, setting in method.of_kind("param").items()
        if setting.tune is not None and name not in params
    }
    trials = []
    for index in range(count):
        drawn = {name: tune.at(places[index - 1]) for name, (tune, places) in ranges.items() if index > 0}
        trials.append(
            build(
                suite,
                registry,
                task,
                method,
                params={**params, **drawn},
                knobs=({},),
                cases=(),
                data=data,
                device=device,
                seed=seed,
                budget=budget,
                like=like,
                role="tuning",
            )
        )
    return trials


def _places(seed: int, name: str, count: int) -> list[float]:
    """One number in each of `count` equal parts of 0..1, in random order."""
    import numpy as np

    rng = np.random.default_rng([seed, *name.encode()])
    return [float(place) for place in (rng.permutation(count) + rng.random(count)) / max(1, count)]
