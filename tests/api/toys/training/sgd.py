"""Plain gradient descent."""

import numpy as np

from effbench import Log, param

from .task import Optimiser


class Sgd(Optimiser):
    name = "toy-sgd"
    lr = param(0.1, tune=Log(1e-3, 1.0))

    def update(self, x, y, t):
        out = np.tanh(x @ self.net)
        self.run.tally(matmuls=2)
        self.net -= self.lr * (1 - t / self.steps) * x.T @ ((out - y) * (1 - out**2)) / len(x)
