"""RMSProp: the gradient divided by the root of a running average of its square, with momentum after the division.

Source: Tieleman and Hinton, lecture 6e (2012), as `torch.optim.RMSprop`. The steadiest of the first-order arms on the digits.
"""

from __future__ import annotations

import torch

from effbench import Choice, Log, param

from .task import Optimiser


class RmsProp(Optimiser):
    name = "rmsprop"
    lr = param(0.0007, tune=Log(0.00007, 0.007))
    momentum = param(0.9, tune=Choice(0.0, 0.9))
    decay = param(0.9, tune=Choice(0.9, 0.99))

    def start(self, net, steps):
        self.optimiser = torch.optim.RMSprop(net.parameters, lr=self.lr, momentum=self.momentum, alpha=self.decay)

    def update(self, net, batch, factor):
        net.back_propagate(batch)
        self.optimiser.param_groups[0]["lr"] = self.lr * factor
        self.optimiser.step()
