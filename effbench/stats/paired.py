"""The verdict of a comparison from alternating samples: two arms timed in the same rounds, in one or several process pairs.

log(candidate / baseline) per round, the median of a process (or the mean, see `middle`), Student's t over the processes: rounds of one process share its
memory layout and are not independent. With one process the blocks of consecutive rounds stand in for processes; that covers
drift within the process and nothing between processes, and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log1p, nan

import numpy as np

from . import interval

VERDICTS = ("FASTER", "SLOWER", "SAME", "UNCLEAR")
BLOCKS = 6  # with one process: enough for a t of 2.6, long enough blocks to average noise out
MIN_ROUNDS = 2 * BLOCKS


@dataclass(frozen=True)
class Comparison:
    """`ratio` is candidate over baseline, so 0.9 means a tenth less. `low` and `high` are nan where nothing can be said."""

    ratio: float
    low: float
    high: float
    verdict: str
    rule: str
    processes: int
    rounds: int
    per_process: tuple[float, ...]  # ratio of each process (or block)


def compare(
    candidate: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    *,
    minimum_effect: float = 0.02,
    level: float = 0.95,
    better: str = "lower",
    middle: Callable[[np.ndarray], float] = np.median,
) -> Comparison:
    """One sequence of samples per process for each arm, element r of both from round r. All samples are positive.

    `middle` makes one number of a process's log ratios: the median where they are rounds, among which stray ones are late; the mean
    where they are independent draws with more than one mode.
    `better` is "lower" for times and "higher" for throughputs; FASTER always means that the candidate is the better one.
    ValueError where the arms do not pair up.
    """
    logs = [_log_ratios(c, b) for c, b in zip(*_paired(candidate, baseline))]
    rounds = sum(map(len, logs))
    if len(logs) > 1:
        units, unit = [float(middle(rows)) for rows in logs], f"{len(logs)} processes"
    elif rounds >= MIN_ROUNDS:
        units = [float(np.median(block)) for block in np.array_split(logs[0], BLOCKS)]
        unit = f"{BLOCKS} blocks of one process (differences between processes are not covered)"
    else:
        units, unit = [float(np.median(logs[0]))], f"one process of {rounds} rounds (at least {MIN_ROUNDS} are needed)"
    found = interval.mean(units, level)
    verdict = decide(found.low, found.high, minimum_effect, better)
    rule = f"Student t over {unit}, {level:.0%} interval against a minimum effect of {minimum_effect:.1%}"
    low, high = (exp(found.low), exp(found.high)) if found.known else (nan, nan)
    return Comparison(exp(found.value), low, high, verdict, rule, len(logs), rounds, tuple(exp(u) for u in units))


def decide(low: float, high: float, minimum_effect: float, better: str = "lower") -> str:
    """Verdict of an interval of log ratios (nan where unknown).

    FASTER or SLOWER: the whole interval lies beyond the minimum effect. SAME: it lies wholly within. UNCLEAR: anything else.
    """
    if minimum_effect < 0:
        raise ValueError(f"minimum_effect must not be negative, not {minimum_effect}")
    if better not in ("lower", "higher"):
        raise ValueError(f"better is 'lower' or 'higher', not {better!r}")
    margin = log1p(minimum_effect)
    if better == "higher":
        low, high = -high, -low
    if high < -margin:
        return "FASTER"
    if low > margin:
        return "SLOWER"
    if -margin <= low and high <= margin:
        return "SAME"
    return "UNCLEAR"


def _paired(candidate, baseline) -> tuple[list[np.ndarray], list[np.ndarray]]:
    arms = [[np.asarray(process, dtype=float).ravel() for process in arm] for arm in (candidate, baseline)]
    if len(arms[0]) != len(arms[1]) or not arms[0]:
        raise ValueError(f"{len(arms[0])} processes of the candidate against {len(arms[1])} of the baseline")
    for number, (c, b) in enumerate(zip(*arms)):
        if len(c) != len(b) or len(c) == 0:
            raise ValueError(f"process {number}: {len(c)} rounds of the candidate against {len(b)} of the baseline")
        if not (np.isfinite(c).all() and np.isfinite(b).all() and (c > 0).all() and (b > 0).all()):
            raise ValueError(f"process {number}: samples must be positive and finite")
    return arms[0], arms[1]


def _log_ratios(candidate: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    return np.log(candidate) - np.log(baseline)
