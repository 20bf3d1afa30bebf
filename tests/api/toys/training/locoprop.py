"""LocoPropM in miniature: a target from one gradient, then K inner steps of the layer's own convex problem."""

import numpy as np

from effbench import Flops, Log, param

from .task import Optimiser


class LocoPropM(Optimiser):
    name = "toy-locoprop-m"
    lr = param(0.05, tune=Log(1e-3, 1.0))
    gamma = param(1.0, tune=Log(0.1, 10.0))
    inner = param(5)

    @property
    def units(self):
        return 2 * self.inner + 1

    def update(self, x, y, t):
        out = np.tanh(x @ self.net)
        target = out - self.gamma * (out - y) * (1 - out**2)
        for k in range(self.inner):
            residual = np.tanh(x @ self.net) - target
            self.net -= self.lr * max(1 - k / self.inner, 0.25) * x.T @ residual / len(x)
        self.run.tally(matmuls=2 * self.inner + 1)

    def flops(self, phase, case, tally):
        return Flops(tally["matmuls"] * 2 * 32 * self.net.size)
