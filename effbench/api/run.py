"""What the engine lends to a method or a task: where to run, randomness, the budget, parts and tallies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Allowance:
    """A budget as the method sees it. `steps` is known wherever it can be known beforehand, else None."""

    steps: int | None = None
    samples: int | None = None
    flops: float | None = None
    time: float | None = None


class Run:
    """device "cpu" or "cuda"; dtype "float32" unless the suite says otherwise; `rng` is seeded from the trial's seed."""

    def __init__(self, *, device="cpu", dtype="float32", threads=1, seed=0, size="smoke", budget=None, backend=None, clock=None):
        self.device, self.dtype, self.threads, self.seed, self.size = device, dtype, threads, seed, size
        self.budget = budget or Allowance()
        import numpy as np  # here, so that `import effbench` stays under 0.1 s

        self.rng = np.random.default_rng(seed)
        self._backend, self._clock = backend, clock
        self.exhausted = False  # set by the engine at the Step that spends the budget
        self._parts: dict[str, float] = {}
        self._counting = False
        self._counts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the build as `build.<name>.time`, on the engine's clock, which stands still while a Step is out."""
        clock = self._clock
        start = clock.elapsed() if clock else 0.0
        try:
            yield
        finally:
            if clock:
                self._parts[name] = self._parts.get(name, 0.0) + clock.elapsed() - start

    def tally(self, **counts) -> None:
        """Count data-dependent work of one call. Values may be functions; they run in the extra, untimed pass only."""
        if not self._counting:
            return
        for name, value in counts.items():
            self._counts[name] = self._counts.get(name, 0.0) + float(value() if callable(value) else value)

    def put(self, array) -> Any:
        """A numpy array as the method's framework holds it, on the run's device (float64 and int64 keep their width)."""
        return self._backend.put(array, self.device) if self._backend else array

    def numpy(self, value) -> Any:
        """The way back: a framework's array, or a tree of them, as numpy."""
        return self._backend.to_numpy(value) if self._backend else value
