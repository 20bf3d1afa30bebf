"""Data sets and prepared material: found, made once, cached by content, charged to no method."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from ..api.errors import DataError
from ..api.values import Data
from ..data import digest, foreign
from ..data import registry as datasets
from ..data.cache import cache_folder
from ..plan import suite as suites
from ..plan.trial import Trial


class Materials:
    def __init__(self, cache: Path | None = None):
        self.cache = cache or cache_folder().parent / "prepared"
        self._digests: dict[tuple, str] = {}
        self._failed: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()  # a comparison counts in several threads

    def missing(self, data: Data) -> str:
        """Why this data cannot be used here, or ""."""
        for name in data.needs:
            state = datasets.state(name)
            if state != "here":
                return f"data set '{name}' is {state}: run `effbench data fetch {name}`"
        for name, path in suites.files(data.args).items():
            if not os.access(path, os.R_OK):
                return f"{name} = {path}: there is no such file, or it may not be read"
        return ""

    def digest(self, data: Data, seed: int) -> str:
        """Digest of the recipe: name, arguments, seed, sha256 of the downloads and of files that arguments name."""
        key = (str(data), seed)
        if key not in self._digests:
            inputs = datasets.inputs(*data.needs) | foreign.inputs(data.args)
            self._digests[key] = digest.digest(data.name, version=1, args=dict(data.args), seed=seed, inputs=inputs)
        return self._digests[key]

    def prepared(self, trial: Trial, runner: Any) -> dict:
        """{"path", "digest", "time"}: the npz with the shared material, made in a worker of its own where it is not cached."""
        with self._lock:
            return self._prepared(trial, runner)

    def _prepared(self, trial: Trial, runner: Any) -> dict:
        from .supervisor import Lost

        registry = runner.plan.registry
        task = registry.task(trial.task)
        source = registry.source_digest(task.file.absolute)
        read = (
            trial.data.args
            if task.prepares is None
            else {name: trial.data.args[name] for name in task.prepares if name in trial.data.args}
        )
        made_of = Data(trial.data.name, read, trial.data.needs)
        text = json.dumps([source, task.name, task.version, str(made_of), trial.size, trial.seed, self.digest(made_of, trial.seed)])
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        path, info = self.cache / f"{key}.npz", self.cache / f"{key}.json"
        if key in self._failed:
            raise Lost(*self._failed[key])
        if not (path.is_file() and info.is_file()):
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(
                    f"cannot write ({error.strerror})", where=str(self.cache), remedy="Set EFFBENCH_DATA to a writable folder."
                ) from None
            runner.progress.phase(trial, "prepare shared material")
            child = None
            try:
                child = runner.start(trial)
                answer = child.ask("prepare", path=str(path))
            except Lost as lost:
                lost.args = (f"prepared material: {lost.reason}",)
                self._failed[key] = (lost.status, f"prepared material: {lost.reason}")
                raise Lost(*self._failed[key]) from None
            finally:
                if child is not None:
                    child.end()
            partial = info.with_name(f".{info.name}.{os.getpid()}")
            partial.write_text(json.dumps({"time": answer["seconds"], "bytes": answer["bytes"]}))
            os.replace(partial, info)
        return {"path": str(path), "digest": key, "time": json.loads(info.read_text())["time"]}
