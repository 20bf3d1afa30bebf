"""Compile time by the framework's own events: seconds in which at least one of tracing, lowering and compiling was going on."""

from __future__ import annotations

import time
from collections.abc import Callable

PREFIX = "/jax/core/compile/"


class CompileClock:
    """Adds up reported durations, each taken to end when it is reported; what is nested (a jit inside a jit) counts once."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._spans: list[tuple[float, float]] = []  # disjoint, in order

    def report(self, event: str, seconds: float, **_) -> None:
        if not event.startswith(PREFIX):
            return
        end = self._clock()
        start = end - seconds
        while self._spans and self._spans[-1][1] > start:
            start = min(start, self._spans.pop()[0])
        self._spans.append((start, end))

    def seconds(self) -> float:
        return sum(end - start for start, end in self._spans)
