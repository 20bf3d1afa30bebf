"""Hyperband: runs of successive halving that trade the number of trials against their first training length, in turn.

Nobody knows how soon errors can be trusted; the brackets s = s_max .. 0 hedge, from many short trials to a few full ones, each for
about the same epochs. Li et al., JMLR 18 (2018), arXiv 1603.06560. Brackets wait for each other as rungs do.
Left out: the model-based sampling that BOHB adds.
"""

from __future__ import annotations

from effbench import Bound, Claim, param

from .successive_halving import SuccessiveHalving, deepest, rungs


def brackets(maximum: int, eta: int, minimum: int = 1) -> list[tuple[int, list[int]]]:
    """(trials, rungs) for s = s_max .. 0; n = ceil((s_max + 1) / (s + 1) * eta^s)."""
    most = deepest(maximum, minimum, eta)
    return [(-(-(most + 1) * eta**s // (s + 1)), rungs(maximum, eta, s)) for s in range(most, -1, -1)]


class Hyperband(SuccessiveHalving):
    name = "hyperband"
    version = 1
    eta = param(3, sweep=[2, 3, 4])
    min_resource = param(1)
    overlap = False
    claims = (
        Claim(
            text="Over an order of magnitude faster than its set of Bayesian competitors, on deep and kernel problems",
            source="arXiv 1603.06560, abstract",
            parts=(
                Bound("quality.time-to-target", "<=", 0.1, over="random-search", data="satellite(workers=1)"),
                Bound("quality.time-to-target", "<=", 0.667, over="random-search", data="satellite(workers=1)"),
            ),
            partly=(1,),
            size="quick",
        ),
    )

    def plan(self, maximum):
        while True:
            yield from brackets(maximum, self.eta, self.min_resource)
