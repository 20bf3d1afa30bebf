"""Sequential Attention on the linear problem, as the source's theory has it: factors a o B with an L2 penalty on the open columns.

Each round minimises 1/2 |Y - X_S B_S - X_U (a o B_U)|^2 + penalty / 2 (|a|^2 + |B_U|^2). Since min of 1/2 (s^2 + t^2) at s t = c is
|c|, that is a LASSO on the open columns; with a penalty just below the largest correlation only the best column has weight, so the
order is that of Sequential LASSO, and of orthogonal matching pursuit.

Source: Yasuda et al., arXiv 2209.14881 (regularised linear Sequential Attention). Gradient steps on a and B from a small start; the
weights of picked columns are minimised out exactly, which changes nothing of the minimum. One-hot labels: B has a row per column.
"""

from __future__ import annotations

import torch

from effbench import param

from .linear import Problem
from .task import Selector

START = 0.01  # of a; B starts at 0


class SequentialAttentionLinear(Selector):
    name = "sequential-attention-linear"
    version = 1
    backend = "torch"
    tightness = param(0.98, sweep=(0.9, 0.98))  # the penalty over the largest correlation of the round
    round_steps = param(400)
    rate = param(0.5)

    def select(self, given, run):
        if not self.tightness > 0 or self.round_steps < 1 or not self.rate > 0:
            raise ValueError("tightness, round_steps and rate must be positive")
        problem = Problem.of(given, run)
        for _ in range(given.k):
            problem.pick(self.best(problem))
        self.spent = problem.flops
        return problem.order

    def best(self, problem: Problem) -> int:
        """The open column of the largest weight after a round."""
        size = self.weights(problem).norm(dim=1)
        return int(torch.where(problem.open, size, -1.0).argmax())

    def weights(self, problem: Problem) -> torch.Tensor:
        """a o B after a round of gradient steps, [d, classes]; 0 for picked columns."""
        open_ = problem.open[:, None]
        largest = problem.correlations().max()
        gram, cross = problem.deflated(), torch.where(open_, problem.cross / largest.clamp(min=1e-300), 0.0)
        a, b = START * open_.to(cross.dtype), torch.zeros_like(cross)
        for _ in range(self.round_steps):
            slope = gram @ (a * b) - cross
            a, b = (
                torch.where(open_, a - self.rate * ((slope * b).sum(1, keepdim=True) + self.tightness * a), 0.0),
                torch.where(open_, b - self.rate * (a * slope + self.tightness * b), 0.0),
            )
        problem.flops += self.round_steps * 2.0 * gram.numel() * cross.shape[1]
        return a * b
