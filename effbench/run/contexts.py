"""Process pairs on a device: within each, several device contexts a side, each made afresh.

A context keeps the speed that it was born with: on an H200 the same chain of products takes 1.405 ms in one and 1.430 ms in another,
whatever buffers, workspaces and streams it gets, and what it will be nobody knows before. Ten contexts a side average that out, for a
quarter of a second each (a fork of the pair's interpreter: imports are paid once); more turns of one context cannot.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from ..measure import noise
from .pairs import SIDES, Driver, Evidence, Pair, Samples

CONTEXTS = 10  # a side and process pair
PATIENCE = 20.0  # s of one benchmark in a process pair, both sides together; after that it gets no further context


class DevicePair(Pair):
    """A pair whose timed processes can be replaced by fresh forks of the same two interpreters."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.ended = 0.0  # CPU seconds of those that were replaced

    def renew(self) -> None:
        self.ended += super().cpu()
        for child in self.children.values():
            child.end()
        self.children.clear()

    def cpu(self) -> float:
        return self.ended + super().cpu()


class DeviceDriver(Driver):
    """As `Driver`; `effort.turns` and `effort.serve` are those of a whole pair, spread over its contexts. What a pair says of a setting
    are the medians of its contexts."""

    def pair(self, bench) -> DevicePair:
        processes = {side: (t.backend, t.device, t.threads) for side, t in bench.trials.items()}
        return DevicePair(processes, memory=self.memory, seconds=self.seconds, hash_seed=self.rng.randrange(1, 2**32 - 1))

    def one(self, group: list[Evidence], timed: set[str], counted: set[str], number: int) -> None:
        if any(item.bench.label in counted for item in group):
            super().one(group, set(), counted, number)
        left = [item for item in group if item.bench.label in timed and item.usable]
        if not left:
            return
        group, known = left, {id(item): {key: len(samples) for key, samples in item.times.items()} for item in left}
        effort, spent = self.effort, dict.fromkeys(map(id, group), 0.0)
        self.effort = replace(effort, turns=even(effort.turns / CONTEXTS), serve=effort.serve / CONTEXTS)
        try:
            with self.pair(group[0].bench) as pair:
                for side in SIDES:
                    self.sides[side].spawn = lambda trial, side=side: pair.fork(side, trial.device)
                before = noise.look()
                for _ in range(CONTEXTS):
                    pair.renew()
                    for item in self.rng.sample(left, len(left)):
                        start = time.monotonic()
                        self.time(pair, item)
                        spent[id(item)] += time.monotonic() - start
                    left = [item for item in left if item.usable and spent[id(item)] < PATIENCE]
                    if not left:
                        break
                after = noise.look()
                reason = noise.disturbed(before, after, own=after.own - before.own + pair.cpu())
        finally:
            self.effort = effort
        for item in group:
            join(item.times, known[id(item)])
            if reason:
                item.disturbed.append(reason)

    def repeats(self, item: Evidence) -> int:
        return 1  # a context


def even(turns: float) -> int:
    """Rounded up to an even number: each side comes first as often as the other."""
    return 2 * max(1, -int(-turns // 2))


def join(times: dict, known: dict) -> None:
    """Of the samples that were added to the `known` ones, a context each, make one: the median of each context."""
    for key, samples in times.items():
        have = known.get(key, 0)
        if fresh := samples[have:]:
            joined = Samples()
            for one in fresh:
                joined.add({side: (median(one.wall[side]), median(one.cpu[side])) for side in SIDES})
            samples[have:] = [joined]
