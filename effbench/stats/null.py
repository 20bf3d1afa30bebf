"""Does the gate stay quiet when nothing changed, and speak when something did? Simulated and relabelled A/A runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .interval import Interval, share
from .paired import Comparison, compare


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log times. `process`: layout of one arm's process against the other's. `round`: within a process.

    `load`: slow drift that both arms of a round share. `spikes`: share of samples hit by another program, up to tenfold.
    """

    process: float = 0.01
    round: float = 0.02
    load: float = 0.2
    spikes: float = 0.05


def simulate(
    rng: np.random.Generator,
    *,
    effect: float = 0.0,
    processes: int = 10,
    rounds: int = 10,
    noise: Noise = Noise(),
    seconds: float = 1e-3,
) -> tuple[np.ndarray, np.ndarray]:
    """(candidate, baseline), each [processes, rounds] in seconds; the candidate takes 1 + effect times as long."""
    shape = (processes, rounds)
    shared = np.cumsum(rng.normal(0.0, noise.load / rounds**0.5, shape), axis=1)

    def arm(shift: float) -> np.ndarray:
        own = rng.normal(0.0, noise.process / 2**0.5, (processes, 1)) + rng.normal(0.0, noise.round, shape)
        hit = (rng.random(shape) < noise.spikes) * rng.uniform(0.0, np.log(10.0), shape)
        return seconds * np.exp(shared + own + hit + shift)

    return arm(np.log1p(effect)), arm(0.0)


def relabelled(
    arms: Sequence[tuple[Sequence[float], Sequence[float]]], rng: np.random.Generator, times: int
) -> Iterator[tuple[list, list]]:
    """Null data out of a real comparison: in each process the two arms keep or swap their names at random, as whole processes."""
    for _ in range(times):
        swap = rng.random(len(arms)) < 0.5
        yield [b if s else a for (a, b), s in zip(arms, swap)], [a if s else b for (a, b), s in zip(arms, swap)]


def flagged(comparison: Comparison) -> bool:
    return comparison.verdict in ("FASTER", "SLOWER")


def alarm_rate(
    runs: int,
    *,
    effect: float = 0.0,
    seed: int = 0,
    rule: Callable[..., Comparison] = compare,
    minimum_effect: float = 0.02,
    **shape,
) -> Interval:
    """Share of simulated comparisons that are flagged: the false-alarm rate at effect 0, the power elsewhere."""
    rng = np.random.default_rng(seed)
    hits = sum(flagged(rule(*simulate(rng, effect=effect, **shape), minimum_effect=minimum_effect)) for _ in range(runs))
    return share(int(hits), runs)
