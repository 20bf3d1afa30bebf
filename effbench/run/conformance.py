"""`effbench check`: the conformance set on any method, ours or an outsider's, through the engine that measures.

Each method runs at smoke size with two seeds, in workers of its own, under deadline and memory limit; then its live worker
answers the probes. A FILE may lie in a known folder of techniques, or in a package folder of one's own, which is then read
beside the known ones.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..api.errors import RegistryError, suggest
from ..api.values import SIZES
from ..data.cache import cache_folder
from ..plan import plan as plans
from ..plan import suite as suites
from ..plan.origins import Origin, own_origin, plugin_origins
from ..plan.plan import Plan
from ..plan.registry import MethodInfo, Registry, TaskInfo
from ..plan.suite import Limits, RunSpec, Suite
from ..plan.trial import Trial
from .assemble import Provenance
from .journal import Journal
from .materials import Materials
from .opening import opening
from .progress import Progress
from .rounds import Live, Part
from .schedule import Runner
from .supervisor import Child, Lost, Nurseries

LIMITS = Limits(seconds=120.0, memory=4 << 30, turn=0.005, rounds=3, serve=0.1)
WIDTH = 12
ATTRIBUTES = ("name", "version", "backend", "deterministic", "claims")


@dataclass(frozen=True)
class Finding:
    """One line: what was asked of which method, and "ok", "FAIL" or "n.a." with the reason."""

    task: str
    method: str
    check: str
    outcome: str
    detail: str = ""


def check(path: str | None, *, task: str | None = None, as_json: bool = False, echo: Callable[[str], None] = print) -> int:
    """Check one method, one file or (None) everything; 0 where nothing failed, 1 otherwise. RegistryError for what is not there."""
    registry, targets, problems = select(path, task)
    found: list[Finding] = [Finding("", "", "registry", "FAIL", problem) for problem in problems]
    for finding in found if not as_json else ():
        echo(line(finding))
    with Nurseries() as nurseries:
        for number, (name, info) in enumerate(targets, 1):
            if not as_json:
                echo(f"{name}/{info.name}" + (f"  ({number} of {len(targets)})" if len(targets) > 1 else ""))
            for finding in examine(registry, registry.task(name), info, nurseries):
                found.append(finding)
                if not as_json:
                    echo(line(finding))
    counts = {outcome: sum(finding.outcome == outcome for finding in found) for outcome in ("ok", "FAIL", "n.a.")}
    if as_json:
        echo(json.dumps({"counts": counts, "methods": len(targets), "findings": [vars(finding) for finding in found]}, indent=1))
    else:
        failed = sorted({f"{f.task}/{f.method}" for f in found if f.outcome == "FAIL" and f.method})
        echo(f"{len(targets)} methods: {counts['ok']} ok, {counts['FAIL']} failed, {counts['n.a.']} not applicable")
        if failed:
            echo(f"failed: {', '.join(failed)}")
    return 1 if counts["FAIL"] else 0


def line(finding: Finding) -> str:
    return f"  {finding.outcome:<5} {finding.check:<{WIDTH}} {finding.detail}".rstrip()


# -- what to check --------------------------------------------------------------------------------------------------------


def select(path: str | None, task: str | None) -> tuple[Registry, list[tuple[str, MethodInfo]], list[str]]:
    """The registry, the (task, method) pairs asked for, and what the registry could not read of them."""
    file = Path(path) if path is not None and (path.endswith(".py") or "/" in path or Path(path).is_dir()) else None
    if file is not None and file.exists():
        registry, chosen, problems = of_file(file.resolve())
    else:
        registry = Registry.read()
        chosen = list(registry.methods.values()) if path is None else registry.find(path)
        problems = registry.problems if path is None else []
    targets = {(name, info.name): info for info in chosen for name in info.tasks if task in (None, name)}
    if task is not None:
        registry.task(task, "--task")
    if not targets and not problems:
        known = {name for _, name in registry.methods}
        raise RegistryError("there is no method to check", where=path or "effbench check", remedy=suggest(path or "", known))
    return registry, [(name, info) for (name, _), info in sorted(targets.items(), key=lambda item: item[0])], problems


def of_file(path: Path) -> tuple[Registry, list[MethodInfo], list[str]]:
    plugins, _ = plugin_origins()
    origins = [own_origin(), *plugins]
    if not any(path.is_relative_to(origin.folder.resolve()) for origin in origins):
        origins.append(outside(path))
    registry = Registry.read(origins)
    inside = [file for file in registry.files.values() if file.path.resolve() == path or file.path.resolve().is_relative_to(path)]
    chosen = [info for info in registry.methods.values() if info.file in inside]
    problems = [problem for problem in registry.problems if any(str(file.path) in problem for file in inside)]
    return registry, chosen, problems


def outside(path: Path) -> Origin:
    """An outsider's package folder as an origin: the topmost folder with an __init__.py."""
    folder = path if path.is_dir() else path.parent
    if not (folder / "__init__.py").is_file():
        raise RegistryError(
            f"the folder '{folder.name}' is no package: it has no __init__.py",
            where=str(path),
            remedy=f"Technique files lie in a package folder, so that they can import each other: add an empty {folder.name}/__init__.py.",
        )
    while (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    if not folder.name.isidentifier():
        raise RegistryError(
            f"'{folder.name}' is no name of a package", where=str(folder), remedy="Rename it to letters, digits and _."
        )
    spec = importlib.util.find_spec(folder.name)
    if spec is not None and str(folder) not in map(str, spec.submodule_search_locations or ()):
        raise RegistryError(
            f"another package is called '{folder.name}' ({spec.origin})", where=str(folder), remedy="Rename the folder."
        )
    return Origin(folder.name, folder, f"folder {folder.name}")


# -- one method -----------------------------------------------------------------------------------------------------------


class Inspector(Runner):
    """A Runner whose workers note every file they touch."""

    def start(self, trial: Trial) -> Child:
        nursery = self.nurseries.get(trial.backend, trial.device, trial.threads)
        child = Child(nursery, LIMITS.memory, self.allowed())
        try:
            child.ask("probe", name="watch")
            child.ask("open", **opening(self.plan.registry, trial))
        except Lost as lost:
            lost.printed = child.tail()
            child.end()
            raise
        return child


def examine(registry: Registry, task: TaskInfo, info: MethodInfo, nurseries: Nurseries) -> Iterator[Finding]:
    def say(check: str, outcome: str, detail: str = "") -> Finding:
        return Finding(task.name, info.name, check, outcome, " ".join(detail.split())[:400])

    def ask(name: str, child: Child, probe: str, **arguments) -> Finding:
        try:
            answer = child.ask("probe", name=probe, **arguments)
        except Lost as lost:
            return say(name, "FAIL", f"{lost.status}: {lost.reason}")
        return say(name, answer["outcome"], answer["detail"])

    with tempfile.TemporaryDirectory(prefix="effbench-check-") as folder:
        plan = smoke_plan(registry, task, info, seed=0)
        inspector = Inspector(
            plan,
            Journal(Path(folder)),
            Provenance("check", "check", "unknown", ""),
            Materials(),
            Progress(0, quiet=True),
            nurseries,
        )
        own = [str(cache_folder()), str(inspector.materials.cache), folder]
        if not plan.groups[0].trials:
            yield say("gates", "n.a.", plan.groups[0].skipped[0][1])
            return
        trial = plan.groups[0].trials[0]
        # 1. A worker that only imports.
        try:
            child = inspector.start(trial)
        except Lost as lost:
            yield say("import", "n.a." if lost.status == "skipped" else "FAIL", f"{lost.status}: {lost.reason}")
            return
        try:
            found = ask("import", child, "clean", allowed=own)
            printed = child.tail().strip()
            yield say("import", "FAIL", f"prints at import: {printed[:200]}") if found.outcome == "ok" and printed else found
            read = {name: repr(getattr(info, name)) for name in ATTRIBUTES}
            settings = {name: repr(setting) for name, setting in info.settings.items()}
            yield ask("literals", child, "literals", attributes=read, settings=settings)
            yield ask("constructor", child, "constructor")
        finally:
            child.end()
        # 2. A measured one, which then answers the probes.
        if reason := inspector.materials.missing(trial.data):
            yield say("gates", "n.a.", reason)
            return
        live = open_live(inspector, trial)
        records = inspector.journal.done.values()
        if live is None:
            record = next(iter(records))
            skipped = record["status"] == "skipped"
            yield say("skip", "ok" if skipped else "n.a.", record["reason"] if skipped else "it did not skip")
            yield say("gates", "n.a." if skipped else "FAIL", f"{record['status']}: {record['reason']}")
            return
        try:
            yield ask("skip", live.child, "skipping")
            if live.trial.cases:
                part = Part(inspector, plan.groups[0], [live], live)
                part.rounds()
                part.finish()
            else:
                write_build(inspector, live)
            yield from gates(inspector, registry, task, info, say)
            yield from knobs(live.trial, records, say)
            cases = [case for case in trial.cases if any(r["case"] == case and r["status"] == "ok" for r in records)]
            for case in cases:
                if (found := ask("no cache", live.child, "cached", case=case)).outcome != "ok" or case == cases[-1]:
                    yield found
                    break
            yield ask("seeds", live.child, "seeds", cases=cases)
            yield from flops(live, records, cases, ask)
            yield ask("build FLOPs", live.child, "build_flops")
            yield ask("save, load", live.child, "keeping", cases=cases)
            yield ask("memory", live.child, "releasing")
            yield ask("bad input", live.child, "bad_input", cases=cases)
            yield ask("leftovers", live.child, "clean", allowed=own)
        finally:
            live.child.end()


def open_live(inspector: Inspector, trial: Trial) -> Live | None:
    """As the Runner opens one; a build without a serve phase stays alive as well, for the probes."""
    if trial.cases:
        return inspector.open_live(trial)
    try:
        child, answer = inspector.built(trial)
    except Lost as lost:
        inspector.fail(trial, lost.status, lost.reason)
        return None
    return Live(trial, child, answer, trial.settings())


def write_build(inspector: Inspector, live: Live) -> None:
    build = live.build
    inspector.write(
        live.trial, readings={**build["readings"], **build["quality"]}, curve=build["curve"], prepared=build["prepared"],
        loaded=build["loaded"], notes=build["notes"],
    )  # fmt: skip


def gates(inspector: Inspector, registry, task, info, say) -> Iterator[Finding]:
    """The task's own judgement of two seeds."""
    bad = [record for record in inspector.journal.done.values() if record["status"] not in ("ok", "skipped")]
    second = smoke_plan(registry, task, info, seed=1)
    for trial in second.groups[0].trials:
        inspector.plan = second
        inspector.run_group(second.groups[0])
        keys = {trial.key}
        bad += [r for r in inspector.journal.done.values() if r["key"] in keys and r["status"] not in ("ok", "skipped")]
    if not any(record["status"] == "ok" for record in inspector.journal.done.values()):
        bad = bad or list(inspector.journal.done.values())
    if bad:
        where = f" in {bad[0]['case']}" if bad[0]["case"] else ""
        yield say("gates", "FAIL", f"seed {bad[0]['seed']}{where}: {bad[0]['status']}: {bad[0]['reason']}")
        return
    count = sum(record["status"] == "ok" for record in inspector.journal.done.values())
    yield say("gates", "ok", f"seeds 0 and 1, {count} records")


def knobs(trial: Trial, records, say) -> Iterator[Finding]:
    if len(trial.knobs) < 2:
        yield say("knobs", "n.a.", "no knob with a sweep")
        return
    bad = [r for r in records if r["key"] == trial.key and r["knobs"] and r["status"] not in ("ok", "skipped")]
    if bad:
        yield say("knobs", "FAIL", f"{bad[0]['knobs']} in {bad[0]['case']}: {bad[0]['status']}: {bad[0]['reason']}")
    else:
        yield say("knobs", "ok", "; ".join(json.dumps(k) for k in trial.knobs))


def flops(live: Live, records, cases: list[str], ask) -> Iterator[Finding]:
    """The worst of the cases at the first knob setting speaks for all."""
    found = []
    for case in cases:
        record = next(
            r for r in records if r["key"] == live.trial.key and r["case"] == case and r["status"] == "ok"
        )  # any knob setting: formula and counter saw the same call
        readings = {name: record["readings"][name] for name in ("serve.flops", "serve.flops.counter")}
        found.append(ask("FLOPs", live.child, "serve_flops", readings=readings, case=case))
    if found:
        yield min(found, key=lambda finding: ("FAIL", "n.a.", "ok").index(finding.outcome))


# -- the smallest plan ----------------------------------------------------------------------------------------------------


def smoke_plan(registry: Registry, task: TaskInfo, info: MethodInfo, *, seed: int) -> Plan:
    """One trial at smoke size: as the smoke suite runs the task, else its first data set; knobs at default and both ends."""
    spec = smoke_run(task.name)
    if spec is None:
        spec = RunSpec(task.name, data=(), budgets=(None,))
    ends = knob_ends(info)
    run = RunSpec(
        task.name, data=spec.data[:1], methods=(info.name,), budgets=spec.budgets[:1],
        params={name: values for name, values in spec.params.items() if name == info.name}, knobs={info.name: ends} if ends else {},
    )  # fmt: skip
    suite = Suite("check", (run,), size=SIZES[0], seeds=(seed,), limits=LIMITS, where="effbench check")
    return plans.make(suite, registry)


def smoke_run(task: str) -> RunSpec | None:
    if "smoke" not in suites.names():
        return None
    return next((run for run in suites.read("smoke").runs if run.task == task), None)


def knob_ends(info: MethodInfo) -> dict[str, list]:
    """All knobs at their defaults, at the first and at the last values of their sweeps, in step."""
    sweeps = info.of_kind("knob")
    if not any(setting.sweep for setting in sweeps.values()):
        return {}
    rows = [[(setting.default, *setting.sweep)[i] for setting in sweeps.values()] for i in (0,)]
    rows += [[setting.sweep[i] if setting.sweep else setting.default for setting in sweeps.values()] for i in (0, -1)]
    return {", ".join(sweeps): [list(row) for row in dict.fromkeys(map(tuple, rows))]}
