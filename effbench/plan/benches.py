"""The benchmarks that two sides of a comparison share: the same trial, planned from each side's own techniques."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..api.errors import EffbenchError, SuiteError, suggest
from . import plan as plans
from .plan import describe
from .registry import Registry
from .suite import Suite
from .trial import Trial


@dataclass(frozen=True)
class Bench:
    """One trial on both sides. `settings` are (case, base's knobs, head's knobs), one entry with "" where nothing is served."""

    base: Trial
    head: Trial
    settings: tuple[tuple[str, tuple, tuple], ...]
    deterministic: bool

    @property
    def trials(self) -> dict[str, Trial]:
        return {"base": self.base, "head": self.head}

    @property
    def label(self) -> str:
        """Short, and unique within a comparison."""
        trial = self.head
        budget = f" with {describe(trial.budget)}" if trial.budget else ""
        return f"{trial.task}/{trial.label} on {trial.data}{budget}" + (f" ({trial.device})" if trial.device != "cpu" else "")

    @property
    def process(self) -> tuple[str, str, int]:
        """Benchmarks that may share a process."""
        return self.head.backend, self.head.device, self.head.threads

    @property
    def changed(self) -> bool:
        """Whether a content key differs: the method, the task, what they import, or the settings."""
        return self.base.key != self.head.key


@dataclass
class Matched:
    benches: list[Bench]
    added: list[str]  # in head only
    removed: list[str]  # in base only
    notes: list[str]


def match(
    suite: Suite, base: Registry, head: Registry, *, tasks: Iterable[str] = (), methods: Iterable[str] = (),
    tuned: Callable[[Registry], Callable] | None = None,
) -> Matched:  # fmt: skip
    """Plan the suite's first seed on both sides and pair the trials up. SuiteError where neither side has what is asked for."""
    tasks, methods = tuple(tasks), tuple(methods)
    found = Matched([], [], [], [])
    suite = replace(suite, seeds=suite.seeds[:1])
    known = {name for side in (base, head) for _, name in side.methods}
    for name in methods:
        if name not in known:
            raise SuiteError(f"neither side has a method '{name}'", where="--method", remedy=suggest(name, known))
    for name in tasks:
        if name not in {run.task for run in suite.runs}:
            raise SuiteError(
                f"suite '{suite.name}' has no run of task '{name}'",
                where="--task",
                remedy=suggest(name, {r.task for r in suite.runs}),
            )
    errors = []
    for run in suite.runs:
        if tasks and run.task not in tasks:
            continue
        sides = {}
        for name, registry in (("base", base), ("head", head)):
            try:
                sides[name] = _trials(replace(suite, runs=(run,)), registry, methods, tuned)
            except EffbenchError as error:
                sides[name] = {}
                errors.append(f"{name}: {error}")
        _pair(sides["base"], sides["head"], base, head, found)
    if not found.benches and errors:
        raise SuiteError("nothing to compare: " + "; ".join(errors[:3]), where=suite.where, remedy="Look at --suite and --method.")
    found.notes += errors if not methods else []
    return found


def _trials(suite: Suite, registry: Registry, methods: tuple[str, ...], tuned) -> dict[tuple, list[Trial]]:
    known = registry.methods_of(registry.task(suite.runs[0].task, suite.where).name)
    chosen = [name for name in methods if name in known]
    if methods and not chosen:
        return {}
    plan = plans.make(suite, registry, methods=chosen, tuned=tuned(registry) if tuned else None)
    out: dict[tuple, list[Trial]] = {}
    for group in plan.groups:
        for trial in group.trials:
            out.setdefault((trial.task, trial.method, str(trial.data), str(trial.budget), trial.device, trial.seed), []).append(
                trial
            )
    return out


def _pair(base: dict, head: dict, base_registry: Registry, head_registry: Registry, found: Matched) -> None:
    """By name, and within one method in the order in which its settings are written."""
    for key in {**base, **head}:
        ours, theirs = base.get(key, []), head.get(key, [])
        label = f"{key[0]}/{key[1]} on {key[2]}"
        if not ours:
            found.added.append(label)
        elif not theirs:
            found.removed.append(label)
        elif len(ours) != len(theirs):
            found.notes.append(f"{label}: {len(ours)} settings in base, {len(theirs)} in head; left out")
        for a, b in zip(ours, theirs) if len(ours) == len(theirs) else ():
            if a.backend != b.backend:
                found.notes.append(f"{label}: backend {a.backend} became {b.backend}; each side runs on its own")
            if a.params != b.params:
                found.notes.append(f"{label}: settings differ, {a.params} in base and {b.params} in head")
            settings = _settings(a, b, label, found.notes)
            infos = [registry.method(key[0], key[1]) for registry in (base_registry, head_registry)]
            if settings:
                found.benches.append(Bench(a, b, settings, all(info.deterministic for info in infos)))


def _settings(a: Trial, b: Trial, label: str, notes: list[str]) -> tuple:
    if not a.cases or not b.cases:
        if bool(a.cases) != bool(b.cases):
            notes.append(f"{label}: one side serves, the other does not; left out")
            return ()
        return (("", (), ()),)
    if len(a.knobs) != len(b.knobs):
        notes.append(f"{label}: {len(a.knobs)} knob settings in base, {len(b.knobs)} in head; left out")
        return ()
    missing = set(a.cases) ^ set(b.cases)
    if missing:
        notes.append(f"{label}: cases of one side only are left out ({', '.join(sorted(missing))})")
    pairs = [(tuple(sorted(x.items())), tuple(sorted(y.items()))) for x, y in zip(a.knobs, b.knobs)]
    return tuple((case, x, y) for case in b.cases if case in a.cases for x, y in pairs)


def since(benches: list[Bench], reference: Matched) -> list[Bench]:
    """Benchmarks whose content key differs from the reference's (head of `benches` against head of the reference)."""
    keys = {bench.head.key for bench in reference.benches}
    return [bench for bench in benches if bench.head.key not in keys]


def touched(bench: Bench, registries: dict[str, Registry], files: Iterable[str]) -> set[str]:
    """Changed files (relative to the folder of techniques) that this benchmark loads on either side."""
    files, loads = set(files), set()
    for side, trial in bench.trials.items():
        registry = registries[side]
        method, task = registry.method(trial.task, trial.method), registry.task(trial.task)
        folder: Path = method.file.origin.folder
        paths = registry.closure(method.file.absolute, task.file.absolute)
        loads |= {path.relative_to(folder).as_posix() for path in paths if path.is_relative_to(folder)}
    return files & loads
