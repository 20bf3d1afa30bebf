"""asv benchmarks out of a suite: one class per method, so that a new method needs no file here.

The suite is EFFBENCH_ASV_SUITE, by default smoke. time_serve is CPU time where the work is on the CPU; FLOPs, bytes and quality are
track_ series. For asv less is always better, so a quality of which more is better is a series of its inverse. asv keeps the history;
`effbench compare` judges a change (docs/comparing.md).
"""

import importlib
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from effbench.backends import get
from effbench.plan import plan as plans
from effbench.plan import suite as suites
from effbench.plan.origins import mount
from effbench.plan.registry import Registry
from effbench.run.session import Session

REGISTRY = Registry.read()
SMALLEST = 1e-9  # a quality of nothing: its inverse must be a number


def groups():
    """The suite as this commit can run it: what a commit does not have yet is left out of its history."""
    suite = suites.read(os.environ.get("EFFBENCH_ASV_SUITE", "smoke"))
    for run in suite.runs:
        try:
            yield from plans.make(replace(suite, runs=(run,), seeds=suite.seeds[:1]), REGISTRY).groups
        except Exception as error:
            print(f"{run.task}: {error}")


def session(trial) -> Session:
    """The trial built in this process."""
    infos = REGISTRY.task(trial.task), REGISTRY.method(trial.task, trial.method)
    mount(infos[1].file.origin)
    task, method = (getattr(importlib.import_module(info.file.absolute), info.cls) for info in infos)
    like = None
    if trial.like:
        other = REGISTRY.method(trial.task, trial.like[0])
        like = lambda: getattr(importlib.import_module(other.file.absolute), other.cls)(**trial.like[1])  # noqa: E731
    backend = get(trial.backend)
    backend.pin_threads(trial.threads)
    found = Session(
        task(), lambda: method(**trial.params), backend=backend, data=trial.data, size=trial.size, seed=trial.seed,
        device=trial.device, dtype=trial.dtype, threads=trial.threads, budget=trial.budget, like=like, replicates=trial.replicates,
    )  # fmt: skip
    prepared = found.prepare()[0]
    found.build(prepared)
    with tempfile.TemporaryDirectory() as folder:
        found.store(Path(folder))
    if trial.cases:
        found.open_serve(prepared)
    return found


class Bench:
    """What every method's class shares. `trial` is set below; a parameter is one (case, knobs)."""

    trial = None
    timer = time.process_time
    rounds, repeat, sample_time, warmup_time = 2, (1, 5, 5.0), 0.02, 0.02
    timeout = 300

    def setup(self, setting):
        self.session, self.setting = session(self.trial), self.settings[setting]
        if self.trial.cases:
            self.call, self.batches = self.session.call(self.setting), self.session.batches(self.setting[0])

    def _readings(self):
        readings = {**self.session.build_readings, **self.session.quality}
        return {**readings, **self.session.finish(self.setting)} if self.trial.cases else readings


def serve(self, setting):
    for batch in self.batches[:3]:
        self.session.backend.synchronise(self.call(batch))


def tracker(metric: str, unit: str, *, inverse: bool = False):
    def track(self, setting):
        value = self._readings().get(metric, {}).get("value")
        if value is None:
            return float("nan")
        return 1 / max(value, SMALLEST) if inverse else value

    track.unit = f"1/({unit})" if inverse else unit
    return track


def quality(task) -> dict:
    """The track_ series of a task's metrics, named so that asv and a reader know which way is up."""
    found = {}
    for name, metric in task.metrics.items():
        inverse = metric.better == "higher"
        series = f"track_quality_{name}".replace("@", "_at_").replace("-", "_") + ("_inverse" if inverse else "")
        found[series] = tracker(f"quality.{name}", metric.unit, inverse=inverse)
    return found


def bench(trial, task) -> type:
    settings = {
        " ".join([case, *(f"{k}={v}" for k, v in knobs)]).strip() or "build": (case, knobs) for case, knobs in trial.settings()
    }
    body = {"trial": trial, "settings": settings, "params": [list(settings)], "param_names": ["setting"]}
    body["track_build_time"] = tracker("build.time", "s")
    body |= quality(task)
    if trial.cases:
        body |= {"time_serve": serve, "peakmem_serve": serve, "track_serve_flops": tracker("serve.flops", "FLOP")}
        body["track_size_bytes"] = tracker("size.bytes", "B")
    return type("_".join([trial.task, trial.method]).replace("-", "_"), (Bench,), body)


for _group in groups():
    for _trial in _group.trials:
        _made = bench(_trial, _group.task)
        _name, _number = _made.__name__, 2
        while _name in globals():  # the same method under other data, budgets or params
            _name, _number = f"{_made.__name__}_{_number}", _number + 1
        _made.__name__ = _made.__qualname__ = _name
        _made.__module__ = __name__
        globals()[_name] = _made
