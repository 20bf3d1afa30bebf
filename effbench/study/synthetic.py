"""Records that no run made: schema-valid, of every status and shape, to try what comes after a run. Never results.

All of them carry the suite, commit and tree "synthetic"; reports print a warning on them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy

from ..api.record import SCHEMA, STATUSES, dumps, reading
from .records import ENVIRONMENT, RECORDS, SUITE

NAME = "synthetic"
BAD = tuple(status for status in STATUSES if status != "ok")
SUITE_FILE = """name = "synthetic"
title = "Synthetic records: no measurement"
size = "quick"
seeds = [0, 1, 2]
devices = ["cpu"]

[[run]]
task = "made-up-search"
methods = ["exact"]

[report]
baseline = "exact"
fronts = [["quality.recall@10", "serve.throughput"]]
"""


def records(
    n: int,
    *,
    methods: Sequence[str] = ("exact", "tree", "hash", "graph"),
    machines: Sequence[str] = ("alpha",),
    seed: int = 0,
    seeds: int = 3,
    failing: float = 0.1,
) -> list[dict]:
    """n records over machines, two tasks (one served at three cases and four knob settings, one trained with a curve), methods
    and seeds. About the fraction `failing` of them failed, each failure status in turn. The first method is the baseline.
    """
    rng = numpy.random.default_rng(seed)
    failures = 0
    made: list[dict] = []
    for plan in _plans(methods, machines, seeds):
        if len(made) == n:
            return made
        # Failures are spread by a fixed stride, so that every status occurs also among few records.
        status = "ok"
        if failing and plan["method"] != methods[0] and len(made) % max(1, round(1 / failing)) == 3:
            status, failures = BAD[failures % len(BAD)], failures + 1
        made.append(_record(rng, plan, status, methods))
    raise ValueError(f"{n} records are more than the {len(made)} that these methods, machines and seeds give")


def _plans(methods, machines, seeds):
    repeats = max(seeds, 1)
    for turn in range(1000):
        # Beyond the first round every turn is a data set of its own, so that identities stay apart.
        suffix = f"rows={20000 * (turn + 1)}"
        for machine in machines:
            for method in methods:
                for trial in range(repeats):
                    common = {"machine": machine, "method": method, "seed": trial}
                    yield {"task": "made-up-training", "data": f"patterns({suffix})", "case": "", "knobs": {}, **common}
                    for case in ("batch-1", "batch-16", "batch-256"):
                        for leaves in (0,) if method == methods[0] else (1, 4, 16, 64):
                            knobs = {"leaves": leaves} if leaves else {}
                            yield {"task": "made-up-search", "data": f"clustered({suffix})", "case": case, "knobs": knobs, **common}


def _record(rng, plan: dict, status: str, methods) -> dict:
    training = plan["task"] == "made-up-training"
    params = {"lr": 0.001, "width": 64} if training else {"partitions": 256, "loss": "exact"}
    label = json.dumps([plan["task"], plan["data"], plan["machine"], plan["method"], plan["seed"], params])
    record = {
        "schema": SCHEMA, "role": "measure", "key": hashlib.sha256(label.encode()).hexdigest()[:16], "suite": NAME,
        "area": "made-up", "task": plan["task"], "task_version": 1, "method": plan["method"], "method_version": 1,
        "backend": "numpy", "data": plan["data"], "size": "quick", "seed": plan["seed"], "device": "cpu", "threads": 1,
        "dtype": "float32", "params": params, "knobs": plan["knobs"], "case": plan["case"],
        "budget": {"steps": 360} if training else {}, "status": status,
        "reason": "" if status == "ok" else f"made-up reason of a record with status {status}",
        "readings": {}, "group": hashlib.sha256(plan["data"].encode()).hexdigest()[:8], "baseline": methods[0],
        "environment": environment_key(plan["machine"]), "commit": NAME, "tree": NAME, "loaded": NAME, "data_digest": NAME,
        "measure_version": 1, "time": "2000-01-01T00:00:00Z", "notes": ["synthetic"],
    }  # fmt: skip
    if status in ("ok", "unstable"):
        (_trained if training else _served)(rng, record, methods.index(plan["method"]))
    return record


def _spread(rng, value: float, unit: str, share: float = 0.03, n: int = 30) -> dict:
    middle = value * math.exp(rng.normal(0, share / 3))
    return reading(middle, unit, low=middle * (1 - share), high=middle * (1 + share), n=n, how="made up")


def _served(rng, record: dict, rank: int) -> None:
    batch, leaves = int(record["case"].split("-")[1]), record["knobs"].get("leaves", 256)
    share = leaves / 256 / (1 + rank * (256 - leaves) / 512)
    flops = 5.12e6 * batch * (share + 0.01 * (rank > 0))
    latency = flops / 4e9 * (1, 1.6, 4.0, 1.2)[rank % 4] + 2e-5
    recall = 1.0 if rank == 0 else 1 - 0.6 * math.exp(-leaves / (4 + 3 * rank))
    exact = rank == 0
    record["readings"] = {
        "build.time": _spread(rng, 0.01 if exact else 0.8 * rank, "s"),
        "build.flops": reading(0 if exact else 3e9 * rank, "FLOP", how="formula"),
        "serve.latency": _spread(rng, latency, "s"),
        "serve.throughput": _spread(rng, batch / latency, "1/s"),
        "serve.flops": reading(flops, "FLOP", how="formula"),
        "serve.peak_memory": reading(3.1e7 * (1 + rank), "B", how="peak resident set"),
        "serve.energy": reading(None, "J", reason="no energy sensor"),
        "size.bytes": reading(1.0e7 * (1 + 0.2 * rank), "B", how="saved"),
        "quality.recall@10": reading(recall, "1", low=max(recall - 0.01, 0), high=min(recall + 0.01, 1), n=1000, how="per query"),
    }
    if rank:
        ratios = (latency / (5.12e6 * batch / 4e9 + 2e-5)) * numpy.exp(rng.normal(0, 0.02, 20))
        record["samples"] = {"serve.latency.ratio": [float(f"{value:.4g}") for value in ratios]}


def _trained(rng, record: dict, rank: int) -> None:
    steps = [18 * i for i in range(1, 21)]
    flops = [2e8 * step * (1 + 0.5 * rank) for step in steps]
    time = [flop / 5e9 * (1 + 0.2 * rank) for flop in flops]
    loss = [2.3 * math.exp(-step * (1 + 0.4 * rank) / 150) + 0.3 + float(rng.normal(0, 0.01)) for step in steps]
    record["curve"] = {
        "steps": steps, "samples": [step * 32 for step in steps], "flops": flops,
        "time": [float(f"{t:.4g}") for t in time], "loss": [float(f"{v:.4g}") for v in loss],
    }  # fmt: skip
    record["tuning"] = {"trials": 6, "flops": 6 * flops[-1], "time": 6 * time[-1], "stale": False}
    record["readings"] = {
        "build.time": _spread(rng, time[-1], "s"),
        "build.flops": reading(flops[-1], "FLOP", how="counter"),
        "build.peak_memory": reading(6.0e7 * (1 + 0.3 * rank), "B", how="peak resident set"),
        "size.parameters": reading(65_610, "1", how="counted"),
        "quality.accuracy": _spread(rng, 0.9 + 0.015 * (rank % 6), "1", share=0.005, n=1000),
        "quality.loss": _spread(rng, loss[-1], "1", share=0.02, n=1000),
    }


def environment_key(machine: str) -> str:
    return hashlib.sha256(machine.encode()).hexdigest()[:12]


def environments(machines: Sequence[str]) -> dict[str, dict]:
    return {
        environment_key(name): {"name": name, "cpu": f"made-up processor {name}", "cores": 2, "memory": 2**34, "os": "Linux"}
        for name in machines
    }


def write(folder: str | Path, made: Sequence[dict], *, machines: Sequence[str] = ("alpha",), suite: str = SUITE_FILE) -> Path:
    """A run folder of these records, as `effbench run` would leave it. Existing files are replaced."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORDS).write_text("".join(dumps(record) + "\n" for record in made), encoding="utf-8")
    (folder / ENVIRONMENT).write_text(json.dumps(environments(machines), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / SUITE).write_text(suite, encoding="utf-8")
    return folder


def many(n: int, *, methods: int = 200, machines: int = 6) -> list[dict]:
    """n records spread evenly over machines, and over methods of which each machine measured some: for tests of scale."""
    names = [f"method-{index:03d}" for index in range(methods - 1)]
    made: list[dict] = []
    for place in range(machines):
        share = n // machines + (place < n % machines)
        shift = place * len(names) // machines
        turned = ["exact", *names[shift:], *names[:shift]]
        made += records(share, methods=turned, machines=(machine_name(place),), seed=place, seeds=1)
    return made


def machine_name(place: int) -> str:
    return f"machine-{place}"
