"""`effbench profile`: builds one method in a worker, runs it under its framework's profiler, and says where the time goes."""

from __future__ import annotations

import ast
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.errors import DataError, RunError, SuiteError
from ..data import registry as datasets
from ..data.cache import roofline_folder
from ..measure import roofline
from ..measure.host import environment_key, fingerprint
from ..plan import plan as plans
from ..plan import suite as suites
from ..plan.registry import Registry
from ..plan.trial import Trial
from ..run import command, provenance
from ..run.assemble import Provenance
from ..run.journal import Journal
from ..run.materials import Materials
from ..run.progress import Progress
from ..run.schedule import Runner
from ..run.supervisor import Lost, Nurseries
from ..study import results


@dataclass(frozen=True)
class Options:
    method: str
    task: str = ""
    case: str = ""
    data: str = ""
    size: str = "quick"
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    knobs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    budget: str = ""  # as steps=100, for tasks that train
    out: Path | None = None
    dtype: str = "float32"


def settings(pairs: tuple[str, ...], where: str) -> dict[str, Any]:
    """ "name=value" pairs; values as Python literals, else as text."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise SuiteError(f"'{pair}' is not written as name=value", where=where, remedy="For example --knob leaves=16.")
        try:
            found[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = value.strip()
    return found


def plan_of(options: Options, registry: Registry) -> tuple[plans.Plan, Trial]:
    """A suite of one trial, so that every mistake in the command is met by the checks of suites."""
    infos = registry.find(f"{options.task}/{options.method}" if options.task else options.method)
    tasks = sorted({task for info in infos for task in info.tasks})
    if len(tasks) > 1 and not options.task:
        raise SuiteError(f"method '{options.method}' is in several tasks", where="--task", remedy=f"(known: {', '.join(tasks)}).")
    task = registry.task(options.task or tasks[0], "--task")
    name = infos[0].name
    if "serve" not in task.phases:
        raise SuiteError(
            f"task '{task.name}' has no serve phase", where="--task", remedy="Only calls are profiled; choose another task."
        )
    known = [case.name for case in task.cases if options.size in case.sizes] or [case.name for case in task.cases]
    run: dict[str, Any] = {"task": task.name, "methods": [name], "cases": [options.case or known[-1]]}
    if options.data:
        run["data"] = [options.data]
    if options.budget:
        run["budget"] = settings((options.budget,), "--budget")
    head = {
        "name": "profile",
        "size": options.size,
        "seeds": [options.seed],
        "devices": [options.device],
        "threads": options.threads,
        "dtype": options.dtype,
    }
    text = toml(head) + "\n[[run]]\n" + toml(run)
    for kind, pairs in (("params", options.params), ("knobs", options.knobs)):
        if chosen := settings(pairs, f"--{kind[:-1]}"):
            text += f'\n[{kind}."{name}"]\n' + toml(chosen)
    plan = plans.make(suites.parse(text, "command line"), registry)
    for group in plan.groups:
        if group.skipped:
            raise RunError(group.skipped[0][1], where=f"{task.name}/{name}", remedy="Choose another --device.")
    return plan, plan.groups[0].trials[0]


def toml(values: dict[str, Any]) -> str:
    def literal(value: Any) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{json.dumps(k)} = {literal(v)}" for k, v in value.items()) + " }"
        return json.dumps(list(value) if isinstance(value, tuple) else value)

    return "".join(f"{json.dumps(name)} = {literal(value)}\n" for name, value in values.items())


def profile(options: Options) -> dict[str, Any]:
    """What `effbench profile --json` prints: trial, rows with times, shares, FLOP/s and share of the roof, path of the trace."""
    registry = Registry.read()
    suites.one_of(options.size, suites.SIZES, "size", "--size")
    suites.one_of(options.device, suites.DEVICES, "device", "--device")
    suites.one_of(options.dtype, suites.DTYPES, "dtype", "--dtype")
    if reason := command.absent(options.device):
        raise RunError(f"no device '{options.device}' here: {reason}", where="--device", remedy="Choose cpu.")
    plan, trial = plan_of(options, registry)
    for name in plan.needs:
        if datasets.state(name) != "here":
            raise DataError(f"data set '{name}' is missing", where=str(trial.data), remedy=f"Run `effbench data fetch {name}`.")
    machine = fingerprint()
    key = environment_key(machine, options.threads, options.device)
    out = (options.out or Path("profiles") / f"{trial.task}-{trial.method}-{trial.cases[0]}").absolute()
    case, knobs = trial.settings()[0]
    with (
        tempfile.TemporaryDirectory(prefix="effbench-profile-") as folder,
        Journal.open(Path(folder), suite="profile", text=plan.suite.text, fresh=True) as journal,
        Nurseries() as nurseries,
    ):
        origin = Provenance("profile", key, provenance.commit(), provenance.tree_digest())
        runner = Runner(plan, journal, origin, Materials(), Progress(1, quiet=True), nurseries)
        child = None
        try:
            child, _ = runner.built(trial)
            child.ask("open_serve")
            answer = child.ask("profile", case=case, knobs=[list(pair) for pair in knobs], out=str(out))
        except Lost as lost:
            last = child or getattr(lost, "child", None)
            raise RunError(
                f"{lost.status}: {lost.reason}", where=f"{trial.task}/{trial.label}", remedy=last.tail(8) if last else ""
            ) from None
        finally:
            if child is not None:
                child.end()
    roofs = roofline.load(roofline_folder(), key, options.device, options.threads) or results.roofs(key)
    found = {
        "task": trial.task, "method": trial.method, "params": trial.params, "knobs": dict(knobs), "case": case, "data": str(trial.data),
        "size": trial.size, "device": trial.device, "dtype": trial.dtype, "backend": trial.backend,
    }  # fmt: skip
    return (
        found | shares(answer, roofs, trial.dtype) | {name: answer[name] for name in ("wall", "profiled", "calls", "trace", "note")}
    )


def shares(answer: dict, roofs: dict | None, dtype: str) -> dict[str, Any]:
    """Rows with share of the profiled time, FLOP/s, and share of the roof that bounds them ("compute" or "memory", the latter above 1 where
    a cache gives the bytes); and what the counter saw that has no row of its own.

    The call as a whole: its FLOPs and bytes by the method's formula where there is one, since no counter looks into a kernel of its own;
    `counted` is what the counter saw of it.
    """
    peak = ((roofs or {}).get("matmul") or {}).get(dtype)
    total = sum(row["seconds"] for row in answer["rows"])
    rows = []
    for row in answer["rows"]:
        rate = row["flops"] / row["seconds"] if row["flops"] and row["seconds"] > 0 else None
        share = row["seconds"] / total if total else None
        rows.append(
            {**row, "share": share, "rate": rate, **of_the_roof(row["flops"], row.get("bytes"), row["seconds"], roofs, dtype)}
        )
    stated = answer.get("formula") or {}
    flops = answer["flops"] if stated.get("flops") is None else stated["flops"]
    seen = sum(row["bytes"] for row in rows if row.get("bytes"))
    moved = max(stated.get("bytes") or 0, seen) or None  # a formula gives the least, the rows what no kernel hides
    whole = flops / answer["wall"] if flops and answer["wall"] > 0 else None
    return {
        "rows": rows, "flops": flops, "counted": answer["flops"], "bytes": moved, "rate": whole, "peak": peak,
        **of_the_roof(flops, moved, answer["wall"], roofs, dtype),
        "elsewhere": answer["elsewhere"], "uncounted": answer["uncounted"],
    }  # fmt: skip


def of_the_roof(flops: float | None, moved: float | None, seconds: float, roofs: dict | None, dtype: str) -> dict[str, Any]:
    """{"roof": the share of the roof that bounds this work, "bound": which one it is}; None and "" where nothing is known."""
    if not roofs or not seconds > 0:
        return {"roof": None, "bound": ""}
    found = roofline.share(flops or None, moved, seconds, roofs, dtype)
    bound = found.bound or ("compute" if found.compute is not None else "memory" if found.memory is not None else "")
    return {"roof": {"compute": found.compute, "memory": found.memory, "": None}[bound], "bound": bound}
