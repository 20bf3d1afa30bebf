"""Timing one turn of a live worker: calls cycle through the batches, the first is dropped, each is timed by itself.

A call below SHORT is timed in an inner loop instead, since a pair of clocks would be felt (below 1 us a call, a test holds it).
Every call is synchronised, also inside a loop: a framework that returns before its work is done may run calls side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SHORT = 20e-6  # s
LOOP = 100e-6  # s that one inner loop should last
MAX_LOOPS = 10_000


@dataclass
class Turn:
    """Seconds per call: wall and process CPU time, one entry per timed sample."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    calls: int = 0
    loops: int = 1  # calls in one sample
    first: float = 0.0  # seconds of the dropped first call: compilation and cold caches
    last_index: int = 0
    last_output: Any = None


def _nothing(value: Any) -> None:
    return None


def turn(
    call: Callable, batches: list, *, seconds: float = 0.05, synchronise: Callable = _nothing, first: int = 0, min_calls: int = 1
) -> Turn:
    """Call for at least `seconds` and `min_calls` after one dropped call. `first` rotates where the cycle through the batches
    begins. `synchronise(output)` waits until the output is there. The last output and its batch are kept for scoring."""
    clock, cpu_clock = time.perf_counter, time.process_time
    count = len(batches)
    index = first % count
    start = clock()
    output = call(batches[index])
    synchronise(output)
    result = Turn(first=clock() - start)
    result.loops, index = _calibrate(call, batches, index, synchronise)
    loops = result.loops
    wall, cpu, calls = result.wall, result.cpu, 0
    end = clock() + seconds
    while True:
        cpu_start = cpu_clock()
        start = clock()
        for _ in range(loops):
            index += 1
            output = call(batches[index % count])
            synchronise(output)
        stop = clock()
        wall.append((stop - start) / loops)
        cpu.append((cpu_clock() - cpu_start) / loops)
        calls += loops
        if stop >= end and calls >= min_calls:
            break
    result.calls, result.last_index, result.last_output = calls, index % count, output
    return result


def _calibrate(call: Callable, batches: list, index: int, synchronise: Callable) -> tuple[int, int]:
    """How many calls one sample holds. Doubled until it lasts, since the first call says nothing about the later ones."""
    clock, count, loops = time.perf_counter, len(batches), 1
    while True:
        start = clock()
        for _ in range(loops):
            index += 1
            synchronise(call(batches[index % count]))
        spent = clock() - start
        if spent >= (SHORT if loops == 1 else LOOP / 2) or loops >= MAX_LOOPS:
            return loops, index
        loops = min(MAX_LOOPS, max(2 * loops, int(LOOP / max(spent / loops, 1e-9) / 2)))


def measure(function: Callable, *args, seconds: float = 0.5, **kwargs) -> dict:
    """A reading of one function call in this process: median, its interval, and CPU time. For notebooks, not for claims.

    The result is waited for where it has `block_until_ready` (jax) or lives on a CUDA device (torch).
    """
    from statistics import median

    from ..api.record import reading
    from ..stats.interval import median_interval

    timed = turn(lambda _: function(*args, **kwargs), [None], seconds=seconds, synchronise=wait)
    low, high = median_interval(timed.wall) if len(timed.wall) > 5 else (None, None)
    how = "median wall time in this process" + (f", {timed.loops} calls a sample" if timed.loops > 1 else "")
    extra = {"n": timed.calls, "low": low, "high": high, "min": min(timed.wall), "cpu": median(timed.cpu)}
    return reading(median(timed.wall), "s", how=how, **extra)


def wait(value: Any) -> None:
    """Block until what a framework promised is there. Imports nothing."""
    if isinstance(value, (tuple, list)):
        for item in value:
            wait(item)
    elif isinstance(value, dict):
        wait(list(value.values()))
    elif hasattr(value, "block_until_ready"):
        value.block_until_ready()
    elif getattr(value, "is_cuda", False):
        import sys

        sys.modules["torch"].cuda.synchronize(value.device)
