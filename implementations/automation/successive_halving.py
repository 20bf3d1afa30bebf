"""Synchronous successive halving: start n trials for few epochs, keep the best 1/eta, train those eta times longer, repeat.

A rung ends when all of its trials have reported: its stragglers are what ASHA was made for. Finished brackets are followed by new
ones until the cluster is over. Jamieson and Talwalkar 2015; rungs as in Hyperband (Li et al., 1603.06560).
`successive-halving-overlapping` opens a further bracket whenever workers would idle, the stronger synchronous opponent.
Left out: rungs are whole epochs, so where eta does not divide the longest training they are rounded down.
"""

from __future__ import annotations

from collections.abc import Iterator

from effbench import param

from .task import Tuner


def deepest(maximum: int, minimum: int, eta: int) -> int:
    """The largest s with minimum * eta^s <= maximum. In integers: math.log(243, 3) is below 5."""
    if eta < 2 or not 1 <= minimum <= maximum:
        raise ValueError(f"needs eta >= 2 and 1 <= min_resource <= {maximum} epochs, not eta {eta} and min_resource {minimum}")
    s = 0
    while minimum * eta ** (s + 1) <= maximum:
        s += 1
    return s


def rungs(maximum: int, eta: int, s: int) -> list[int]:
    """Epochs at which s + 1 rungs end; the last is the full training."""
    return [maximum // eta ** (s - i) for i in range(s + 1)]


class Bracket:
    """One run of successive halving with barriers: `levels[i]` is where rung i ends, `count` trials start."""

    def __init__(self, draw, count: int, levels: list[int], eta: int):
        self.draw, self.levels, self.eta = draw, levels, eta
        self.fresh, self.queue = count, []  # trials not drawn yet; trials kept from the rung below and not started yet
        self.rung, self.size, self.missing = 0, count, count  # `missing` reports until the barrier opens
        self.reports: list[tuple[float, int]] = []
        self.done = False

    def propose(self) -> tuple[int, int] | None:
        """The next job, None at a barrier."""
        if self.fresh:
            self.fresh -= 1
            return self.draw(), self.levels[0]
        return (self.queue.pop(0), self.levels[self.rung]) if self.queue else None

    def observe(self, trial: int, error: float) -> None:
        """The result of one job; NaN for a failed trial, which counts in the size of the rung and is never kept."""
        self.missing -= 1
        if error < float("inf"):
            self.reports.append((error, trial))
        if self.missing:
            return
        if self.rung + 1 < len(self.levels):
            self.queue = [trial for _, trial in sorted(self.reports)[: self.size // self.eta]]
        self.done = not self.queue
        self.rung, self.size, self.missing, self.reports = self.rung + 1, len(self.queue), len(self.queue), []


class SuccessiveHalving(Tuner):
    name = "successive-halving"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    overlap = False  # whether idle workers open a further bracket

    def plan(self, maximum: int) -> Iterator[tuple[int, list[int]]]:
        """(trials, rungs) of the brackets, one after the other, without end."""
        s = deepest(maximum, self.min_resource, self.eta)
        while True:
            yield self.eta**s, rungs(maximum, self.eta, s)

    def begin(self, cluster):
        deepest(cluster.epochs, self.min_resource, self.eta)
        self.cluster, self.brackets, self.owner = cluster, [], {}
        self.planned = self.plan(cluster.epochs)

    def propose(self):
        self.brackets = [bracket for bracket in self.brackets if not bracket.done]
        for bracket in self.brackets:
            if job := bracket.propose():
                return self.own(bracket, job)
        if self.brackets and not self.overlap:
            return None
        self.brackets.append(bracket := Bracket(self.cluster.sample, *next(self.planned), self.eta))
        return self.own(bracket, bracket.propose())

    def own(self, bracket, job):
        self.owner[job[0]] = bracket
        return job

    def observe(self, job):
        self.owner[job.trial].observe(job.trial, job.error)


class OverlappingHalving(SuccessiveHalving):
    name = "successive-halving-overlapping"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    overlap = True
