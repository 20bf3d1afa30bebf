"""The linear problem that OMP, LASSO and linear Sequential Attention share: centred one-hot labels from standardised columns.

min over B of 1/2 |Y - X B|^2. Everything needed is in the Gram matrix G = X'X [d, d] and in C = X'Y [d, classes], so a step costs
nothing in rows. Picking a column takes its direction out of both, as a Cholesky factorisation with pivots of one's choice does.
"""

from __future__ import annotations

import numpy as np
import torch

DEPENDENT = 1e-9  # of a column's squared length: what is left of a column that the picked ones span is round-off


class Problem:
    """gram [d, d], cross [d, classes] of what the picked columns do not explain, float64; `flops` counts the matmuls so far."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor):
        """x [n, d], columns scaled to unit length here; y [n, classes]."""
        x, y = x.double(), y.double()
        x, y = x - x.mean(0), y - y.mean(0)
        x = x / x.norm(dim=0)
        self.gram, self.cross = x.T @ x, x.T @ y
        (n, d), classes = x.shape, y.shape[1]
        self.factor = x.new_zeros(0, d)  # rows of the Cholesky factor, one a pick
        self.open = torch.ones(d, dtype=torch.bool, device=x.device)
        self.order: list[int] = []
        self.flops = 2.0 * n * d * (d + classes)

    @classmethod
    def of(cls, given, run) -> Problem:
        labels = np.eye(given.classes, dtype=np.float32)[given.y]
        return cls(run.put(given.x), run.put(labels))

    def correlations(self) -> torch.Tensor:
        """Norm over the classes of each column's product with the residual; -1 for picked ones. [d]"""
        return torch.where(self.open, self.cross.norm(dim=1), -1.0)

    def pick(self, j: int) -> None:
        """Take column j: cross becomes that of the least-squares residual on all picked columns."""
        if j in self.order:
            raise ValueError(f"column {j} was picked before")
        self.order.append(j)
        self.open[j] = False
        mine = self.factor[:, j]
        row = self.gram[j] - mine @ self.factor
        self.flops += 2.0 * self.factor.numel()
        left = row[j]
        if left <= DEPENDENT:  # nothing new in it
            return
        row = row / left.sqrt()
        self.cross = self.cross - torch.outer(row, self.cross[j] / left.sqrt())
        self.factor = torch.cat([self.factor, row[None]])

    def deflated(self) -> torch.Tensor:
        """The Gram matrix of what the picked columns leave of each column, [d, d]."""
        t, d = self.factor.shape
        self.flops += 2.0 * t * d * d
        return self.gram - self.factor.T @ self.factor
