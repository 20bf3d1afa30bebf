"""Stochastic gradient descent with momentum (heavy ball, or Nesterov's): the baseline that has no adaptive state.

Source: `torch.optim.SGD`, fused. Nothing is left out.
"""

from __future__ import annotations

import torch

from effbench import Choice, Log, param

from .task import Optimiser


class SgdMomentum(Optimiser):
    name = "sgd-momentum"
    lr = param(0.015, tune=Log(0.0015, 0.15))
    momentum = param(0.9, tune=Choice(0.9, 0.95))
    nesterov = param(True, tune=Choice(True, False))

    def start(self, net, steps):
        self.optimiser = torch.optim.SGD(net.parameters, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True)

    def update(self, net, batch, factor):
        net.back_propagate(batch)
        self.optimiser.param_groups[0]["lr"] = self.lr * factor
        self.optimiser.step()
