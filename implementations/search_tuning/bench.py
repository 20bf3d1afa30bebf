"""What a tuner may ask: measured settings and neighbours' ranks, on the tuning queries alone, every look charged.

A look at a setting is a trial: it costs what all tuning queries read at that setting. Trials are limited, the same number for
every tuner; a setting that was measured before is free. `ranks` is one pass of all tuning queries over all codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from effbench import Wrong

from .table import K


@dataclass(frozen=True)
class Target:
    """A wish: kind "recall" asks for the cheapest setting with at least `value`, "cost" for the best recall of at most `value`."""

    kind: str
    value: float

    def met(self, recall: float, cost: float) -> bool:
        return recall >= self.value if self.kind == "recall" else cost <= self.value


@dataclass(frozen=True)
class Answer:
    """A setting, as indices of the grid, with the recall and the cost that the tuner expects of it."""

    probes: int
    rescored: int
    recall: float
    cost: float


@dataclass(frozen=True, eq=False)
class Ranks:
    """Of each true neighbour of the tuning queries: rank of its partition and of its code among all rows, from 0, int [Q, K]."""

    probe: np.ndarray
    code: np.ndarray
    visited: np.ndarray  # float [A], mean number of points in the first `probes` partitions


class Bench:
    """`table` as `table.build` makes it; `rows` are the tuning queries."""

    def __init__(self, table: dict, rows: np.ndarray, trials: int):
        self._table, self._rows = table, rows
        self.probes, self.rescored = table["probes"].copy(), table["rescored"].copy()
        self.limit = trials
        self.seen: dict[tuple[int, int], tuple[float, float]] = {}  # (probes, rescored) as grid indices -> (recall, cost)
        self.spent = 0.0  # in scans of all vectors
        self._recall = table["hits"][rows].mean(0) / K
        self._cost = table["cost"][rows].mean(0)

    @property
    def shape(self) -> tuple[int, int]:
        return self._cost.shape

    @property
    def queries(self) -> int:
        return len(self._rows)

    @property
    def left(self) -> int:
        return self.limit - len(self.seen)

    def measure(self, probes: int, rescored: int) -> tuple[float, float]:
        """(recall, cost) at a setting given by grid indices."""
        key = (int(probes), int(rescored))
        if not (0 <= key[0] < self.shape[0] and 0 <= key[1] < self.shape[1]):
            raise Wrong(f"setting {key} lies outside the grid of {self.shape}")
        if key not in self.seen:
            if self.left <= 0:
                raise Wrong(f"a trial more than the {self.limit} that every tuner has")
            self.seen[key] = float(self._recall[key]), float(self._cost[key])
            self.spent += float(self._cost[key]) * len(self._rows)
        return self.seen[key]

    def ranks(self) -> Ranks:
        self.spent += float(self._table["rank_cost"]) * len(self._rows)
        return Ranks(
            self._table["probe_rank"][self._rows], self._table["code_rank"][self._rows], self._table["visited"][self._rows].mean(0)
        )

    def byte_costs(self, visited: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The public byte model: a constant, the cost of each number of probes, the cost of each number of rescored points."""
        table = self._table
        return float(table["center_share"]), visited * float(table["code_share"]), self.rescored * float(table["vector_share"])

    def pick(self, target: Target) -> Answer:
        """The best of what was measured: what meets the target, else what comes nearest to it."""
        if not self.seen:
            raise Wrong("nothing was measured")

        def order(item):
            recall, cost = item[1]
            met = target.met(recall, cost)
            if target.kind == "recall":
                return (not met, cost if met else -recall, -recall)
            return (not met, -recall if met else cost, cost)

        (probes, rescored), (recall, cost) = min(self.seen.items(), key=order)
        return Answer(probes, rescored, recall, cost)
