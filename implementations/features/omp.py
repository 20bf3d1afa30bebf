"""Orthogonal matching pursuit: pick the column that correlates most with the least-squares residual, project it out, repeat.

Pati, Rezaiifar and Krishnaprasad, 1993; on one-hot labels, by the norm over the classes (simultaneous OMP, Tropp et al. 2006). The
exact greedy order of the linear problem, once for all k. Nothing is left out; no setting.
"""

from __future__ import annotations

from .linear import Problem
from .task import Selector


class Omp(Selector):
    name = "omp"
    version = 1
    backend = "torch"

    def select(self, given, run):
        problem = Problem.of(given, run)
        for _ in range(given.k):
            problem.pick(int(problem.correlations().argmax()))
        self.spent = problem.flops
        return problem.order
