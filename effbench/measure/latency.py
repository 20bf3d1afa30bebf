"""Timing one turn of a live worker: calls cycle through the batches, the first is dropped, each is timed by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SHORT = 20e-6  # s; below this one clock pair per call would be felt, so calls are timed in inner loops


@dataclass
class Turn:
    """Seconds per call: wall and process CPU time, one entry per timed sample."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    calls: int = 0
    first: float = 0.0  # seconds of the dropped first call: compilation and cold caches
    last_index: int = 0
    last_output: Any = None


def turn(
    call: Callable, batches: list, *, seconds: float = 0.05, synchronise: Callable = lambda value: None, first: int = 0
) -> Turn:
    """Call for at least `seconds` after one dropped call. `first` rotates where the cycle through the batches begins."""
    clock, cpu_clock = time.perf_counter, time.process_time
    count = len(batches)
    index = first % count
    start = clock()
    output = call(batches[index])
    synchronise(output)
    estimate = clock() - start
    result = Turn(first=estimate)
    loops = 1 if estimate >= SHORT else max(1, min(1000, int(SHORT * 5 / max(estimate, 1e-9))))
    end = clock() + seconds
    while True:
        cpu = cpu_clock()
        start = clock()
        for _ in range(loops):
            index += 1
            output = call(batches[index % count])
        synchronise(output)
        stop = clock()
        result.wall.append((stop - start) / loops)
        result.cpu.append((cpu_clock() - cpu) / loops)
        result.calls += loops
        if stop >= end:
            break
    result.last_index, result.last_output = index % count, output
    return result


def measure(function: Callable, *args, seconds: float = 0.5, **kwargs) -> dict:
    """A reading of one function call in this process: median, interval of the median, up to 100 samples."""
    import numpy as np

    from ..api.record import reading
    from ..stats.interval import median_interval

    timed = turn(lambda _: function(*args, **kwargs), [None], seconds=seconds)
    wall = np.array(timed.wall)
    low, high = median_interval(wall) if wall.size > 5 else (None, None)
    return reading(
        float(np.median(wall)), "s", how="wall clock, this process", low=low, high=high, n=timed.calls, min=float(wall.min()),
        cpu=float(np.median(timed.cpu)),
    )  # fmt: skip
