"""ASHA: successive halving that never waits. A free worker promotes any trial in the top 1/eta of what its rung has so far.

If no rung has such a trial, the worker starts a new one at the lowest rung. Some promotions turn out wrong, but no worker idles.
Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934. `asha` promotes, and a stopped trial resumes
from its checkpoint; `asha-stopping` lets a trial go on at once where it is in the top 1/eta on arrival (or the first), else ends it.
`asha-serial` uses one worker: what scaling is measured against. Left out: early-stopping rate s > 0, and lost workers.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from effbench import Bound, Claim, param

from .successive_halving import deepest, rungs
from .task import Tuner


class Ladder:
    """The rungs of one search: who has reported at each, who was promoted. Pure bookkeeping, without a clock."""

    def __init__(self, levels: list[int], eta: int):
        self.levels, self.eta = levels, eta
        self.size = [0] * len(levels)  # reports, those of failed trials included
        self.finite: list[list[tuple[float, int]]] = [[] for _ in levels]  # ascending by error, then by trial
        self.open: list[list[tuple[float, int]]] = [[] for _ in levels]  # those of `finite` that were not promoted

    def report(self, trial: int, rung: int, error: float) -> int:
        """Enter a result; returns its rank in the rung, from 0, or -1 for a failed trial, which takes part in the size only."""
        self.size[rung] += 1
        if not error < float("inf"):  # NaN as well
            return -1
        insort(self.finite[rung], (error, trial))
        insort(self.open[rung], (error, trial))
        return bisect_left(self.finite[rung], (error, trial))

    def promote(self) -> tuple[int, int] | None:
        """(trial, rung to go to) of the highest rung that has a candidate, which counts as promoted from now on; or None."""
        for rung in range(len(self.levels) - 2, -1, -1):
            best = self.open[rung][:1]
            if best and bisect_left(self.finite[rung], best[0]) < self.size[rung] // self.eta:
                return self.open[rung].pop(0)[1], rung + 1
        return None


class Asha(Tuner):
    name = "asha"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    claims = (
        Claim(
            text="Scales linearly with the number of workers, and does not wait for stragglers as synchronous halving does",
            source="arXiv 1810.05934, abstract",
            parts=(
                Bound("quality.worker-time-to-target", "<=", 1.25, over="asha-serial"),
                Bound("quality.time-to-target", "<=", 0.667, over="successive-halving"),
                Bound("quality.time-to-target", "<", 1.0, over="successive-halving-overlapping"),
            ),
            partly=(0,),
            size="quick",
        ),
        Claim(
            text="Half the time of Vizier's search with 500 workers",
            source="arXiv 1810.05934, abstract",
            untestable="Vizier is not public, and 500 workers would exhaust a table of this size",
        ),
    )

    def begin(self, cluster):
        self.cluster = cluster
        self.levels = rungs(cluster.epochs, self.eta, deepest(cluster.epochs, self.min_resource, self.eta))
        self.ladder = Ladder(self.levels, self.eta)
        self.rung: dict[int, int] = {}  # where a trial is, or is on its way to

    def propose(self):
        trial, rung = self.ladder.promote() or (self.cluster.sample(), 0)
        self.rung[trial] = rung
        return trial, self.levels[rung]

    def observe(self, job):
        self.ladder.report(job.trial, self.rung[job.trial], job.error)


class AshaSerial(Asha):
    name = "asha-serial"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    claims = ()

    def workers(self, cluster):
        return 1


class AshaStopping(Asha):
    name = "asha-stopping"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    claims = ()

    def begin(self, cluster):
        super().begin(cluster)
        self.going: list[tuple[int, int]] = []  # trials that may go on, and the rung they go to

    def propose(self):
        trial, rung = self.going.pop() if self.going else (self.cluster.sample(), 0)
        self.rung[trial] = rung
        return trial, self.levels[rung]

    def observe(self, job):
        rung = self.rung[job.trial]
        rank = self.ladder.report(job.trial, rung, job.error)
        if rung + 1 < len(self.levels) and 0 <= rank < max(self.ladder.size[rung] // self.eta, 1):
            self.going.append((job.trial, rung + 1))
