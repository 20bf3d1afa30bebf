"""Sequential LASSO in a network: a group penalty on the first-layer rows of the open features, and the longest row is picked.

Rounds, network and steps are those of `sequential-attention`; in place of its mask stands penalty * sum over open features of the
norm of their rows. Picked features are free of it. For a linear model: Luo and Chen's Sequential LASSO; as a baseline for networks
in arXiv 2209.14881. Different: Adam on the penalty's subgradient, no proximal step, since only the order of the norms is needed.
"""

from __future__ import annotations

import torch

from effbench import Log, param

from .rounds import Rounds


class SequentialLasso(Rounds):
    name = "sequential-lasso"
    version = 1
    backend = "torch"
    strength = param(0.01, tune=Log(0.001, 0.1))

    def select(self, given, run):
        if not self.strength >= 0:
            raise ValueError(f"strength={self.strength} must not be negative")
        return super().select(given, run)

    def penalty(self, net, open_):
        # The small number keeps the gradient of a row of zeros finite.
        norms = torch.sqrt((net.parameters[0] ** 2).sum(1) + 1e-12)
        return self.strength * (norms * open_).sum()

    def scores(self, net):
        return net.parameters[0].detach().norm(dim=1)
