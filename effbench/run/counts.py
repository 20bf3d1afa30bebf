"""What a comparison counts once (FLOPs, memory, size, quality), before anything is timed: several benchmarks at a time where there are cores.

Nothing here is a time, so forks may run side by side, and they come from nurseries that have loaded what counts a call's operations,
a second and a half for each fork otherwise. Timed processes come from nurseries of their own (`pairs`, `contexts`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from ..plan.trial import Trial
from .contexts import DeviceDriver
from .pairs import SIDES, Driver, Evidence, is_skip
from .supervisor import Child, Nursery

MOST = 4  # benchmarks that are counted at a time
# What the counter imports when it is first used.
COUNTERS = {"torch": "torch.utils.flop_counter,torch._dynamo"}


class Roaming(Child):
    """A worker that may use any core; one that is timed is kept on its own."""

    def ask(self, op: str, **arguments) -> dict:
        return super().ask(op, **(arguments | {"cores": []} if op == "open" else arguments))


class Counter:
    """One thread's forks, for benchmarks of any backend. Stands in for a `Pair` where only `fork` is needed."""

    def __init__(self, memory: int, seconds: float):
        self.memory, self.seconds = memory, seconds
        self.nurseries: dict[tuple[str, str, int], Nursery] = {}

    def fork(self, trial: Trial) -> Roaming:
        key = trial.backend, trial.device, trial.threads
        found = self.nurseries.get(key)
        if found is None or found.lost:
            found = self.nurseries[key] = Nursery(*key, preload=COUNTERS.get(trial.backend, ""))
        return Roaming(found, self.memory if trial.device == "cpu" else 0, self.seconds)

    def close(self) -> None:
        for nursery in self.nurseries.values():
            nursery.close()


class CountsFirst:
    """Mixed into a driver: counts everything that is asked for, then times."""

    def measure(self, wanted: dict[str, Evidence], *, times: Iterable[str], facts: Iterable[str], first: int = 0) -> None:
        facts = set(facts)
        if facts and self.effort.facts:
            self.count_all([item for label, item in wanted.items() if label in facts], first)
        super().measure(wanted, times=times, facts=(), first=first)

    def count_all(self, items: list[Evidence], first: int) -> None:
        on_cpu = all(item.bench.head.device == "cpu" for item in items)
        threads = max(item.bench.head.threads for item in items)
        # No more than MOST: each has interpreters of its own, and a device has one memory for all.
        workers = max(1, min(MOST, len(items), (os.cpu_count() or 1) // threads)) if on_cpu else 1
        here, counters, done = threading.local(), [], []

        def fork(trial: Trial) -> Roaming:
            return here.counter.fork(trial)

        for side in SIDES:
            self.sides[side].spawn = fork

        def begin() -> None:
            here.counter = Counter(self.memory, self.seconds)
            counters.append(here.counter)

        def count(item: Evidence) -> None:
            for number in range(first, first + self.effort.facts):
                if item.usable:
                    self.count(here.counter, item, number)
                # One failure may be the machine's: once a benchmark, it is tried again.
                if item.failing and not item.retried:
                    item.retried, item.failed = True, {key: value for key, value in item.failed.items() if is_skip(value)}
                    self.count(here.counter, item, number)
            done.append(item)
            if len(done) % 20 == 0 or len(done) == len(items):
                self.say(f"counted {len(done)} of {len(items)} benchmarks")

        pool = ThreadPoolExecutor(workers, initializer=begin)
        try:
            for finished in [pool.submit(count, item) for item in items]:
                finished.result()
        finally:
            # After Ctrl-C the rest is not begun, and what runs ends with its nursery.
            pool.shutdown(wait=False, cancel_futures=True)
            for counter in counters:
                counter.close()
            pool.shutdown()


class HostDriver(CountsFirst, Driver):
    """Process pairs on the CPU."""


class AcceleratorDriver(CountsFirst, DeviceDriver):
    """Process pairs of several contexts on a device."""


def driver_for(device: str) -> type[Driver]:
    return HostDriver if device == "cpu" else AcceleratorDriver
