"""Choosing settings from tuning records: the same number of trials for every arm, never on what is scored."""

from __future__ import annotations

from dataclasses import replace

from ..plan.plan import Plan, build
from ..plan.registry import TaskInfo
from ..plan.trial import Trial


def better(task: TaskInfo) -> str:
    metric = task.metrics.get(task.objective)
    return metric.better if metric else "lower"


def objective(task: TaskInfo, record: dict) -> float | None:
    """The last validation value of a tuning trial; None where it failed."""
    column = record.get("curve", {}).get(task.objective, [])
    return column[-1] if record["status"] == "ok" and column else None


def best(task: TaskInfo, records: list[dict]) -> dict | None:
    scored = [(value, record) for record in records if (value := objective(task, record)) is not None]
    if not scored:
        return None
    pick = max if better(task) == "higher" else min
    return pick(scored, key=lambda pair: pair[0])[1]


def spent(records: list[dict]) -> dict:
    """What tuning cost: `trials`, `time` (s), `flops`."""

    def total(name: str) -> float | None:
        values = [record["readings"].get(name, {}).get("value") for record in records]
        return sum(values) if values and all(value is not None for value in values) else None

    found = {"trials": len(records), "time": total("build.time"), "flops": total("build.flops")}
    return {name: value for name, value in found.items() if value is not None}


def choose(plan: Plan, task: TaskInfo, trial: Trial, records: list[dict]) -> Trial:
    """The trial at the best tuned settings, with a key of its own; unchanged (but marked) where every tuning trial failed."""
    found = best(task, records)
    if found is None:
        return replace(trial, tuning={**spent(records), "failed": True})
    params = {name: found["params"][name] for name in trial.params}
    method = plan.registry.method(trial.task, trial.method)
    return build(
        plan.suite, plan.registry, task, method, params=params, knobs=trial.knobs, cases=trial.cases, data=trial.data,
        device=trial.device, seed=trial.seed, budget=trial.budget, like=trial.like, tuning=spent(records),
    )  # fmt: skip
