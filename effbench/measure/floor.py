"""This host's A/A floor: one workload against itself, by the rule that verdicts use. What it reports for equal code, it cannot tell.

Fresh process pairs, live side by side, take turns in random order: two small workloads (a numpy product, a Python loop), wall and
CPU time. The floor is the half-width of the interval of the ratio; a flag is a false alarm.

`python -m effbench.measure.floor` is the child: it reads "workload seconds" a line and answers "wall cpu", seconds a call.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..api.errors import RunError
from ..stats.null import flagged
from ..stats.paired import Comparison, compare

PAIRS, ROUNDS = 5, 10
WORKLOADS = ("matmul", "loop")
START_SECONDS = 0.6  # of a process pair: imports, first calls
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Floor:
    """`half`: half-width of the interval of the ratio; None where no interval could be given."""

    workload: str
    clock: str  # wall | cpu
    half: float | None
    low: float
    high: float
    flagged: bool
    verdict: str
    rule: str


def measure(seconds: float = 20.0, *, pairs: int = PAIRS, rounds: int = ROUNDS, seed: int = 0) -> list[Floor]:
    """The floor of each workload and clock, spending about `seconds` (never fewer than the pairs and rounds)."""
    turn = min(0.1, max(0.004, (seconds - pairs * START_SECONDS) / (pairs * rounds * 2 * len(WORKLOADS))))
    rng = random.Random(seed)
    samples: dict[tuple[str, str], tuple[list, list]] = {(w, c): ([], []) for w in WORKLOADS for c in ("wall", "cpu")}
    for _ in range(pairs):
        taken = _pair(turn, rounds, rng)
        for key, arms in samples.items():
            for arm, values in zip(arms, taken[key]):
                arm.append(values)
    return [floor_of(compare(*arms), workload, clock) for (workload, clock), arms in samples.items()]


def floor_of(found: Comparison, workload: str, clock: str) -> Floor:
    known = found.high == found.high  # nan where there is no interval
    half = (found.high - found.low) / 2 if known else None
    return Floor(workload, clock, half, found.low, found.high, flagged(found), found.verdict, found.rule)


def _pair(turn: float, rounds: int, rng: random.Random) -> dict[tuple[str, str], tuple[list, list]]:
    """Samples of one pair of fresh processes: (workload, clock) -> (first arm, second arm), one entry a round."""
    taken: dict[tuple[str, str], tuple[list, list]] = {(w, c): ([], []) for w in WORKLOADS for c in ("wall", "cpu")}
    children = [_start(), _start()]
    try:
        for number in range(-1, rounds):  # the first round warms up
            for workload in WORKLOADS:
                for arm in rng.sample((0, 1), 2):
                    wall, cpu = _ask(children[arm], workload, turn)
                    if number >= 0:
                        taken[workload, "wall"][arm].append(wall)
                        taken[workload, "cpu"][arm].append(cpu)
    finally:
        for child in children:
            child.stdin.close()
        for child in children:
            child.wait(10)
            child.stdout.close()
    return taken


def _start() -> subprocess.Popen:
    env = {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "effbench.measure.floor"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True)


def _ask(child: subprocess.Popen, workload: str, seconds: float) -> tuple[float, float]:
    child.stdin.write(f"{workload} {seconds}\n")
    child.stdin.flush()
    answer = child.stdout.readline().split()
    if len(answer) != 2:
        raise RunError("a process that measures the A/A floor ended", remedy="See the messages above; is numpy installed?")
    return float(answer[0]), float(answer[1])


# -- the child -----------------------------------------------------------------------------------------------------------


def workloads() -> dict[str, Callable[[], object]]:
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((192, 192)), rng.standard_normal((192, 192))
    out = np.empty((192, 192))

    def loop():
        total = 0
        for i in range(5000):
            total += i & 7
        return total

    return {"matmul": lambda: np.matmul(a, b, out=out), "loop": loop}


def serve() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # as the engine pins its timed workers
    calls = workloads()
    for line in sys.stdin:
        name, seconds = line.split()
        wall, cpu = turn(calls[name], float(seconds))
        print(wall, cpu, flush=True)


def turn(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median wall and CPU seconds of a call over a turn, the first call dropped."""
    call()
    walls, cpus, end = [], [], time.perf_counter() + seconds
    while True:
        cpu, start = time.process_time(), time.perf_counter()
        call()
        stop = time.perf_counter()
        walls.append(stop - start)
        cpus.append(time.process_time() - cpu)
        if stop >= end:
            return median(walls), max(median(cpus), 1e-9)


if __name__ == "__main__":
    serve()
