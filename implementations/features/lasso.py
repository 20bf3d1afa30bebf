"""LASSO: the k columns that stay when an L1 penalty on groups (a column's weights for all classes) is as strong as k columns allow.

Tibshirani, 1996; Yuan and Lin, 2006, for groups. Linear in the features, least squares on one-hot labels, as `omp`. Accelerated
proximal gradient (FISTA, with restarts) down a path of penalties from the one that leaves nothing, each started from the last; the
first penalty with k columns or more ends it, and the k longest groups are taken. Left out: the logistic loss, screening rules.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import param

from .linear import Problem
from .task import Selector


class Lasso(Selector):
    name = "lasso"
    version = 1
    backend = "torch"
    path = param(60)  # penalties between the largest and `smallest` times it, evenly in the logarithm
    smallest = param(0.001)
    iterations = param(200)  # at most, for each penalty

    def select(self, given, run):
        if self.path < 2 or self.iterations < 1 or not 0 < self.smallest < 1:
            raise ValueError("lasso needs path >= 2, iterations >= 1 and smallest between 0 and 1")
        problem = Problem.of(given, run)
        gram, cross = problem.gram, problem.cross
        largest = float(problem.correlations().max())
        step = 1.0 / float(torch.linalg.matrix_norm(gram, ord="fro"))  # not the spectral norm: that takes an eigenproblem
        step = max(step, 1.0 / float(gram.abs().sum(0).max()))  # the smaller of two bounds on the largest eigenvalue
        weights, norms, done = torch.zeros_like(cross), None, 0
        for penalty in largest * np.geomspace(0.98, self.smallest, self.path):
            weights, used = solve(gram, cross, weights, float(penalty), step, self.iterations)
            done += used
            norms = weights.norm(dim=1)
            if int((norms > 0).sum()) >= given.k:
                break
        self.spent = problem.flops + done * 2.0 * gram.numel() * cross.shape[1]
        # Columns that even the weakest penalty keeps out follow by their correlation with what is left.
        left = (cross - gram @ weights).norm(dim=1)
        self.spent += 2.0 * gram.numel() * cross.shape[1]
        value = torch.where(norms > 0, 1.0 + norms, left / (1e-12 + 2.0 * left.max()))
        return run.numpy(torch.argsort(value, descending=True, stable=True)[: given.k])


def solve(gram, cross, start, penalty: float, step: float, iterations: int, tolerance: float = 1e-6):
    """(weights [d, classes], iterations used) of 1/2 w'Gw - w'C + penalty * sum of row norms, from `start`."""
    weights = ahead = start
    momentum = 1.0
    used = 0
    while used < iterations:
        used += 1
        moved = ahead - step * (gram @ ahead - cross)
        length = moved.norm(dim=1, keepdim=True)
        new = moved * (1.0 - step * penalty / length.clamp(min=1e-300)).clamp(min=0.0)
        change = new - weights
        if float((change * (ahead - new)).sum()) > 0.0:  # the momentum points uphill: restart it
            momentum = 1.0
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum) ** 0.5)
        ahead = new + (momentum - 1.0) / following * change
        weights, momentum = new, following
        if float(change.abs().max()) <= tolerance * float(new.abs().max().clamp(min=1e-12)):
            break
    return weights, used
