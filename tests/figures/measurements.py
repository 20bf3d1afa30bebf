"""What the engine costs and whether its intervals hold: one function a figure, each returning plain numbers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np

from effbench.backends import get
from effbench.commands import profile
from effbench.measure.latency import turn
from effbench.plan.registry import Registry
from effbench.run import command, rounds, schedule, supervisor
from effbench.run.progress import Progress
from effbench.stats import interval, null, paired

ROOT = Path(__file__).resolve().parents[2]
KNOWN = ROOT / "tests" / "measure"
TICK = os.sysconf("SC_CLK_TCK")


# -- cost inside the timed region ------------------------------------------------------------------------------------------


def call_overhead() -> dict[str, float]:
    """Seconds that timing adds to a call, by backend: an empty call in a turn less the same call in a bare loop."""
    import torch

    batches = [np.zeros(4)] * 3
    found = {}
    for name, batch in (("numpy", batches), ("torch", [torch.zeros(4)] * 3)):
        backend = get(name)
        bare = min(_bare(batch) for _ in range(15))
        timed = turn(_nothing, batch, seconds=0.3, synchronise=backend.synchronise)
        found[name] = min(timed.wall) - bare
    return found


def _nothing(batch):
    return batch


def _bare(batches: list, loops: int = 20_000) -> float:
    batch, call, clock = batches[0], _nothing, time.perf_counter
    start = clock()
    for _ in range(loops):
        call(batch)
    return (clock() - start) / loops


# -- the parent while it waits, the start of a trial -----------------------------------------------------------------------


class Watched(rounds.Part):
    """A part of a group that notes the parent's CPU seconds and the wall seconds of its rounds."""

    cpu = wall = 0.0

    def rounds(self):
        start, cpu = time.perf_counter(), time.process_time()
        super().rounds()
        Watched.wall += time.perf_counter() - start
        Watched.cpu += time.process_time() - cpu


def _run(suite: str, out: Path, *, implementations: str = "", **options) -> command.Outcome:
    kept = {name: os.environ.get(name) for name in ("EFFBENCH_IMPLEMENTATIONS", "EFFBENCH_DATA")}
    os.environ["EFFBENCH_DATA"] = str(out / "cache" / "data")
    if implementations:
        os.environ["EFFBENCH_IMPLEMENTATIONS"] = implementations
    try:
        return command.run(command.Options(suite, out=out / "run", fresh=True, quiet=True, **options))
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def parent_share(folder: Path) -> dict[str, float]:
    """CPU seconds of the parent over wall seconds of the rounds, with turns of 50 ms and ten rounds as `quick` has them."""
    text = (KNOWN / "known.toml").read_text().replace("turn = 0.03", "turn = 0.05").replace("rounds = 5", "rounds = 10")
    suite = folder / "watched.toml"
    suite.write_text(text)
    Watched.cpu = Watched.wall = 0.0
    kept, schedule.Part = schedule.Part, Watched
    try:
        outcome = _run(
            str(suite), folder, implementations=str(KNOWN / "known"), methods=("busy", "burns", "sleeps", "burns-3", "builds")
        )
    finally:
        schedule.Part = kept
    return {"share": Watched.cpu / Watched.wall, "cpu": Watched.cpu, "wall": Watched.wall, "records": sum(outcome.counts.values())}


def trial_start(trials: int = 20) -> dict[str, float]:
    """CPU seconds, of parent, nursery and worker together, from asking for a worker to one with its technique loaded; by backend."""
    found = {}
    registry = Registry.read()
    for info in registry.methods.values():
        if info.backend in found or "serve" not in registry.task(info.tasks[0]).phases:
            continue
        plan, trial = profile.plan_of(profile.Options(info.name, task=info.tasks[0], size="smoke"), registry)
        with supervisor.Nurseries() as nurseries:
            runner = schedule.Runner(plan, None, None, None, Progress(1, quiet=True), nurseries)
            runner.start(trial).end()  # the first waits for the framework's import
            nursery = nurseries.get(trial.backend, "cpu", 1)
            before = time.process_time() + _cpu_of(nursery.process.pid)
            for _ in range(trials):
                runner.start(trial).end()
            found[trial.backend] = (time.process_time() + _cpu_of(nursery.process.pid) - before) / trials
    return found


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICK


# -- where the wall time of a suite goes -----------------------------------------------------------------------------------

SUITE = """
name = "figures"
size = "quick"
seeds = [0]
devices = ["cpu"]

[[run]]
task = "attention-forward"
cases = ["n-256", "n-512", "n-1024"]

[[run]]
task = "vector-search"
data = ["clustered(n=20000, d=64, rank=32, queries=1024)"]

[[run]]
task = "autoencoder-training"
data = ["digits-autoencoder(batch=250)"]
budget = { steps = 120 }

[knobs.ivf]
leaves = [1, 4, 16, 64]

[limits]
seconds = 240
memory = "6 GiB"
rounds = 10
serve = 1.5
"""
AGREEMENT = """
name = "agreement"
size = "quick"
seeds = [0]
devices = ["cpu"]

[[run]]
task = "attention-forward"
methods = ["sdpa", "naive", "chunked", "naive-jax"]
cases = ["n-256", "n-512"]

[limits]
seconds = 120
rounds = 10
serve = 1.5
"""
WORK = {
    "build": "build",
    "turn": "serve",
    "draw": "score",
    "warm": "score",
    "finish": "score",
    "score": "score",
    "prepare": "prepare",
}


def wall_shares(folder: Path) -> dict[str, float]:
    """Seconds of a quick-like suite by what they went to; `share` is what is neither build, serve nor score nor prepared material."""
    suite = folder / "figures.toml"
    suite.write_text(SUITE)
    spent: dict[str, float] = {}
    spans: list[tuple[float, float]] = []  # of what is work; workers are asked side by side
    ask = supervisor.Child.ask

    def timed(self, op, **arguments):
        start = time.perf_counter()
        try:
            return ask(self, op, **arguments)
        finally:
            end = time.perf_counter()
            spent[WORK.get(op, op)] = spent.get(WORK.get(op, op), 0.0) + end - start
            if op in WORK:
                spans.append((start, end))

    supervisor.Child.ask = timed
    start = time.perf_counter()
    try:
        outcome = _run(str(suite), folder)
    finally:
        supervisor.Child.ask = ask
    total = time.perf_counter() - start
    return {"share": 1 - covered(spans) / total, "total": total, **spent, "records": sum(outcome.counts.values())}


def covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in which at least one of the spans was on."""
    found = reached = 0.0
    for start, end in sorted(spans):
        found += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return found


def agreement(folder: Path) -> dict[str, float]:
    """Two runs of one suite: share of (method, case, knobs) whose intervals of time ratios, and of throughput, meet."""
    suite = folder / "agreement.toml"
    suite.write_text(AGREEMENT)
    runs, statuses = [], []
    for number in range(2):
        place = folder / f"run-{number}"
        place.mkdir(exist_ok=True)
        _run(str(suite), place)
        runs.append(_intervals(place / "run" / "records.jsonl"))
        statuses += [json.loads(line)["status"] for line in (place / "run" / "records.jsonl").read_text().splitlines()]
    found: dict[str, list[bool]] = {}
    for key in runs[0].keys() & runs[1].keys():
        (a, b), (c, d) = runs[0][key], runs[1][key]
        found.setdefault(key[-1], []).append(a <= d and c <= b)
    return {name: sum(values) / len(values) for name, values in found.items()} | {
        "pairs": sum(map(len, found.values())), "unstable": statuses.count("unstable") / len(statuses)
    }  # fmt: skip


def _intervals(path: Path) -> dict[tuple, tuple[float, float]]:
    found = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for name in ("serve.latency", "serve.latency.ratio", "serve.cpu.ratio"):
            reading = record["readings"].get(name, {})
            if "low" in reading and record["method"] != record["baseline"]:
                found[record["method"], record["case"], json.dumps(record["knobs"]), name] = (reading["low"], reading["high"])
    return found


# -- intervals -------------------------------------------------------------------------------------------------------------


def coverage(runs: int = 4000) -> dict[str, float]:
    """Share of simulations in which the 95 % interval holds the truth, for every kind of interval that records and verdicts use."""
    rng = np.random.default_rng(0)
    found = {}
    for n in (3, 10, 15):  # seeds or rounds
        draws = np.exp(rng.normal(0.0, 0.1, (runs, n)))
        found[f"times of {n} rounds"] = _share(interval.geometric_interval(row)[1:] for row in draws)
        skewed = np.exp(rng.exponential(0.3, (runs, n)))
        if n >= 6:
            found[f"skewed times of {n} rounds"] = _share(
                (interval.geometric_interval(row)[1:] for row in skewed), np.exp(0.3 * np.log(2))
            )
    for n in (3, 5, 30):
        found[f"mean of {n} seeds"] = _share((interval.mean_interval(row) for row in rng.normal(0.0, 1.0, (runs, n))), 0.0)
    for processes in (5, 10, 30):
        made = [paired.compare(*null.simulate(rng, processes=processes)) for _ in range(runs // 2)]
        found[f"ratio over {processes} process pairs"] = _share((one.low, one.high) for one in made)
    return found


def _share(intervals, truth: float = 1.0) -> float:
    hits = [low <= truth <= high for low, high in intervals]
    return sum(hits) / len(hits)
