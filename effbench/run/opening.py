"""What a worker is told to load: the technique, its task and the trial, as plain data."""

from __future__ import annotations

from ..plan.registry import Registry
from ..plan.trial import Trial
from .supervisor import cores


def opening(registry: Registry, trial: Trial) -> dict:
    """The command that makes a worker load the trial's technique from its folder."""
    task, method = registry.task(trial.task), registry.method(trial.task, trial.method)
    origins = {file.origin.package: file.origin for file in registry.files.values()}
    like = None
    if trial.like:
        info = registry.method(trial.task, trial.like[0])
        like = [info.file.absolute, info.cls, trial.like[1]]
    budget = dict(vars(trial.budget).items()) if trial.budget else None
    return {
        "origins": [[o.package, str(o.folder), o.source] for o in origins.values()],
        "task": [task.file.absolute, task.cls], "method": [method.file.absolute, method.cls, trial.params], "like": like,
        "cores": cores(trial.threads)[0] if trial.device == "cpu" else [],
        "trial": {
            "backend": trial.backend, "device": trial.device, "threads": trial.threads, "dtype": trial.dtype, "size": trial.size,
            "seed": trial.seed, "data": [trial.data.name, dict(trial.data.args)], "budget": budget, "replicates": trial.replicates, "tuning": trial.role == "tuning",
        },
    }  # fmt: skip
