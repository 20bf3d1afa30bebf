"""Adam: steps scaled by running averages of the gradient and of its square, both corrected for their start.

Source: Kingma and Ba, arXiv 1412.6980, as `torch.optim.Adam`, fused. No weight decay: the task is to optimise.
"""

from __future__ import annotations

import torch

from effbench import Choice, Log, param

from .task import Optimiser


class Adam(Optimiser):
    name = "adam"
    lr = param(0.008, tune=Log(0.0008, 0.08))
    beta1 = param(0.9, tune=Choice(0.9, 0.95))
    beta2 = param(0.95, tune=Choice(0.9, 0.95, 0.99))

    def start(self, net, steps):
        self.optimiser = torch.optim.Adam(net.parameters, lr=self.lr, betas=(self.beta1, self.beta2), fused=True)

    def update(self, net, batch, factor):
        net.back_propagate(batch)
        self.optimiser.param_groups[0]["lr"] = self.lr * factor
        self.optimiser.step()
