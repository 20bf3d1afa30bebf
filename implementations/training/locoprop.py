"""LocoProp: every layer gets a target and solves a small problem of its own by a few first-order steps.

One forward and one backward pass give, per layer, its input Y, its pre-activation A and G, the gradient of the loss by A. The
target moves the layer's output a little against G; the layer then takes K inner steps towards it. LocoPropS matches A by
squared loss, LocoPropM matches f(A) by the matching loss of f, whose gradient Y^T (f(Y W) - T) has no factor f'. One inner step
is back-propagation; many approach a step preconditioned by the inputs, so K interpolates between first and second order.

Source: Amid, Anil and Warmuth, arXiv 2106.06199 (AISTATS 2022), following the authors' notebook: all inputs and targets are
computed once, before any layer moves; the state of the inner RMSProp persists; the inner rate falls as max(1 - k/K, 1/4). Left
out, as in the notebook: the explicit penalty for leaving the old weights. Different: gamma is per sample (the notebook's gamma
divided by the batch), and RMSProp is torch's (second moment starts at 0, eps outside the root).
"""

from __future__ import annotations

import torch

from effbench import Bound, Choice, Claim, Log, param

from .formulas import local_steps_flops
from .task import Optimiser


class LocoProp(Optimiser):
    """Both variants; they differ in the residual of a layer's local problem."""

    def residual(self, net, m, a, target):
        """R of layer m at the pre-activation `a`: Y^T R is the gradient of the local problem."""
        raise NotImplementedError

    def target(self, y, a, m, move):
        """What layer m shall put out: its present output minus `move` = gamma * G."""
        raise NotImplementedError

    def start(self, net, steps):
        # One optimiser for all layers: their problems are independent, and RMSProp works number by number.
        self.optimiser = torch.optim.RMSprop(net.parameters, lr=self.lr, alpha=self.decay, momentum=self.momentum, eps=1e-5)

    def update(self, net, batch, factor):
        y, a = net.forward(batch)
        gamma = self.gamma_per_sample * len(batch)
        moves = [gamma * signal for signal in net.signals(y)]
        targets = [self.target(y, a, m, move) for m, move in enumerate(moves)]
        inputs, layers = y[:-1], range(len(targets))
        for k in range(self.inner):
            if k:
                a = [torch.addmm(net.biases[m], inputs[m], net.weights[m]) for m in layers]
                moves = [self.residual(net, m, a[m], targets[m]) for m in layers]
            net.set_gradients(net.gradients(inputs, moves))  # at k = 0 the residual is gamma * G itself
            self.optimiser.param_groups[0]["lr"] = self.lr * factor * max(1.0 - k / self.inner, 0.25)
            self.optimiser.step()

    def step_flops(self, given):
        return local_steps_flops(given.sizes, given.batch, self.inner)


class LocoPropS(LocoProp):
    name = "locoprop-s"
    lr = param(0.001, tune=Log(0.0001, 0.01))
    gamma_per_sample = param(2.0, tune=Log(0.2, 20.0))
    inner = param(5, sweep=(1, 5, 10))
    momentum = param(0.9, tune=Choice(0.0, 0.9))
    decay = param(0.9)

    def target(self, y, a, m, move):
        return a[m] - move

    def residual(self, net, m, a, target):
        return a - target


class LocoPropM(LocoProp):
    name = "locoprop-m"
    lr = param(0.001, tune=Log(0.0001, 0.01))
    gamma_per_sample = param(0.4, tune=Log(0.04, 4.0))
    inner = param(5, sweep=(1, 5, 10))
    momentum = param(0.9, tune=Choice(0.0, 0.9))
    decay = param(0.9)
    claims = (
        Claim(
            "Narrows the gap between first- and second-order optimisers with first-order steps only: at equal steps it trains a "
            "deep autoencoder to a lower loss than tuned first-order methods. The fourth part, that it gets there in less time "
            "than the best of them, is our condition for usefulness; the source promises no number.",
            "Amid et al., arXiv 2106.06199, abstract",
            parts=(
                Bound("quality.train-loss", "<=", 1.0, over="rmsprop"),
                Bound("quality.train-loss", "<=", 1.0, over="adam"),
                Bound("quality.train-loss", "<=", 1.0, over="sgd-momentum"),
                Bound("build.time", "<=", 1.0, over="rmsprop", at="quality.train-loss <= 2.5"),
            ),
            partly=(0, 1, 2),
            size="quick",
        ),
    )

    def target(self, y, a, m, move):
        return y[m + 1] - move

    def residual(self, net, m, a, target):
        return net.transfer(m, a) - target
