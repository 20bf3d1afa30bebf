"""Constrained auto-configuration: the knobs of a multi-level index from one Lagrange multiplier, without trying settings.

Each level keeps the best t of what it sees. Recall is modelled as the product over levels of P[rank of a true neighbour < t],
cost as the bytes read; after a logarithm both are sums, so for a multiplier each level is minimised alone, and sweeping it gives
every tuning on the lower hull. Sun, Guo and Kumar, "Automating Nearest Neighbor Search Configuration with Constrained Optimization"
(ICLR 2023), arXiv 2301.01702; formulas derived anew, since only its abstract could be read. Ranks of level 1 are counted in
partitions. Left out: mean of log recalls per query in place of the log of their mean, deeper hierarchies, billions of rows.
"Lagrange multiplier tuning" is patented (US 12,235,845): see docs/tuning.md before using it in a product.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from effbench import Bound, Claim, param

from .bench import Answer
from .task import KnobTuner


def survival(ranks: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """P[rank < t] for each t of `keep`, from samples; smoothed by half a sample, so that it is neither 0 nor 1."""
    ordered = np.sort(ranks, axis=None)
    return (np.searchsorted(ordered, keep, side="left") + 0.5) / (ordered.size + 1)


def hull(cost: np.ndarray, loss: np.ndarray) -> list[int]:
    """Indices on the lower convex hull of (cost, loss), from the cheapest to the least loss. Only these can be optimal."""
    kept: list[int] = []
    for i in np.lexsort((loss, cost)):
        if kept and loss[i] >= loss[kept[-1]]:
            continue  # dearer and no better
        while len(kept) > 1:
            a, b = kept[-2:]
            if (loss[b] - loss[a]) * (cost[i] - cost[a]) < (loss[i] - loss[a]) * (cost[b] - cost[a]):
                break
            kept.pop()
        kept.append(int(i))
    return kept


def sweep(levels: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int, ...]]:
    """Settings that minimise sum of loss + multiplier * cost for some multiplier, cheapest first; one index for each level.

    A level moves on along its hull when the multiplier falls below the slope of its next edge: all edges in order of steepness.
    """
    hulls = [hull(cost, loss) for cost, loss in levels]
    edges = sorted(
        (-(loss[b] - loss[a]) / (cost[b] - cost[a]), -number, b)
        for number, (corners, (cost, loss)) in enumerate(zip(hulls, levels))
        for a, b in pairwise(corners)
    )
    now = [corners[0] for corners in hulls]
    settings = [tuple(now)]
    for _, number, corner in reversed(edges):
        now[-number] = corner
        settings.append(tuple(now))
    return settings


class Frontier:
    """The swept settings with their modelled cost and loss; `levels` as for `sweep`, `constant` is added to every cost."""

    def __init__(self, levels, constant: float = 0.0):
        self.settings = sweep(levels)
        self.cost = np.array([constant + sum(cost[i] for (cost, _), i in zip(levels, s)) for s in self.settings])
        self.loss = np.array([sum(loss[i] for (_, loss), i in zip(levels, s)) for s in self.settings])

    def for_recall(self, recall: float, bias: float = 0.0) -> int:
        """Position of the cheapest setting whose loss plus `bias` allows the recall; the last one where none does."""
        meets = np.flatnonzero(np.exp(-(self.loss + bias)) >= recall)
        return int(meets[0]) if len(meets) else len(self.settings) - 1

    def for_cost(self, cost: float) -> int:
        """Position of the best setting within the cost; the cheapest where none is."""
        return max(0, int(np.searchsorted(self.cost, cost, side="right")) - 1)


class ConstrainedAutoconf(KnobTuner):
    name = "constrained-autoconf"
    version = 1
    verify = param(0, sweep=(0, 2))  # trials spent on each recall target; each corrects the model by what it measured
    claims = (
        Claim(
            text="Takes just a desired search cost or recall and gives tunings very close to the speed-recall Pareto frontier",
            source="arXiv 2301.01702, abstract; the bounds are ours",
            parts=(
                Bound("quality.front-gap", "<=", 0.05),
                Bound("quality.recall-loss-at-cost", "<=", 0.02),
                Bound("quality.recall-error", "<=", 0.02),
            ),
            partly=(0,),
            size="quick",
        ),
        Claim(
            text="Needs a small part of the exhaustive grid's measuring, and lies nearer to the front than random search does",
            source="our own question about arXiv 2301.01702; no number of the paper could be read",
            parts=(
                Bound("quality.measuring-cost", "<=", 0.1),
                Bound("quality.front-gap", "<", 1.0, over="random-search-knobs"),
            ),
            partly=(0,),
            size="quick",
        ),
    )

    def tune(self, bench, targets, rng):
        if not 0 <= self.verify <= 100:
            raise ValueError(f"verify must lie between 0 and 100, not {self.verify}")
        ranks = bench.ranks()
        constant, *costs = bench.byte_costs(ranks.visited)
        survivals = survival(ranks.probe, bench.probes), survival(ranks.code, bench.rescored)
        frontier = Frontier([(cost, -np.log(alive)) for cost, alive in zip(costs, survivals)], constant)
        return [self.answer(bench, frontier, ranks.visited, target) for target in targets]

    def answer(self, bench, frontier, visited, target):
        if target.kind == "cost":
            at = frontier.for_cost(target.value)
            return Answer(*self.ordered(bench, frontier.settings[at], visited), np.exp(-frontier.loss[at]), frontier.cost[at])
        at, bias, tried = frontier.for_recall(target.value), 0.0, []
        for _ in range(self.verify):
            setting = self.ordered(bench, frontier.settings[at], visited)
            if setting not in bench.seen and not bench.left:
                break
            recall, cost = bench.measure(*setting)
            tried.append((recall < target.value, cost if recall >= target.value else -recall, setting, recall, cost))
            bias = -np.log(max(recall, 1e-9)) - frontier.loss[at]
            at = frontier.for_recall(target.value, bias)
        if tried and min(tried)[0] is False:
            return Answer(*min(tried)[2], *min(tried)[3:])
        recall = min(1.0, float(np.exp(-(frontier.loss[at] + bias))))
        return Answer(*self.ordered(bench, frontier.settings[at], visited), recall, float(frontier.cost[at]))

    @staticmethod
    def ordered(bench, setting, visited):
        """No level keeps more than the one before: rescoring more points than were visited is the same as rescoring those."""
        probes, rescored = setting
        return probes, min(rescored, int(np.searchsorted(bench.rescored, visited[probes])))
