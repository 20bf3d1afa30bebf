"""A trial: everything that decides what is built and called. Frozen, plain data, with a content key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from ..api.values import Budget, Data
from ..measure import MEASURE_VERSION
from .registry import MethodInfo, Registry, TaskInfo


@dataclass(frozen=True)
class Trial:
    """One build, then its cases and knob settings. `key` decides resume and "stale"."""

    key: str
    area: str
    task: str
    task_version: int
    method: str
    method_version: int
    backend: str
    data: Data
    size: str
    seed: int
    device: str
    threads: int
    dtype: str
    params: dict[str, Any]
    budget: Budget | None
    like: tuple[str, dict] | None  # method and params that a budget `like` refers to
    cases: tuple[str, ...]  # () where the task has no serve phase
    knobs: tuple[dict, ...]
    role: str = "measure"
    tuning: dict = field(default_factory=dict)
    replicates: int = 1

    @property
    def label(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.method}({inner})" if inner else self.method

    @property
    def group(self) -> str:
        """Trials of one group are timed in the same rounds: only they may be compared in seconds."""
        text = json.dumps([self.task, str(self.data), self.size, self.device, self.seed, self.threads, self.dtype])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def settings(self) -> list[tuple[str, tuple]]:
        """Every (case, knobs) of the trial; ("", ()) where there is no serve phase."""
        if not self.cases:
            return [("", ())]
        return [(case, tuple(sorted(knobs.items()))) for case in self.cases for knobs in self.knobs]


@cache
def framework_minor(backend: str) -> str:
    """Minor version of the framework, without importing it; "none" where it is not installed."""
    import importlib.metadata

    name = {"native": "numpy"}.get(backend, backend)
    try:
        return ".".join(importlib.metadata.version(name).split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return "none"


def content_key(registry: Registry, task: TaskInfo, method: MethodInfo, **parts: Any) -> str:
    """Digest of the sources, task version, recipe, params, budget, seed, framework minor, device class, MEASURE_VERSION."""
    content = {
        "source": registry.source_digest(method.file.absolute, task.file.absolute),
        "task": [task.name, task.version],
        "method": [method.name, method.version],
        "framework": [method.backend, framework_minor(method.backend)],
        "measure": MEASURE_VERSION,
        **parts,
    }
    text = json.dumps(content, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Data):
        return str(value)
    if isinstance(value, Budget):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} in a content key")
