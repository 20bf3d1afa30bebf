"""The network: a chain of dense layers with its two passes by hand, so that every optimiser pays for the same few matmuls.

Hidden layers are tanh, the bottleneck is linear, the output is a sigmoid. The loss is the cross-entropy summed over pixels and
averaged over the batch. A plain chain needs no autograd; tests compare both passes with it.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch._dynamo  # torch.optim imports it in its first step, seconds that would be charged to the build


class Autoencoder:
    """weights[m]: (d_m, d_{m+1}); biases[m]: (d_{m+1},); layer m maps y_m to y_{m+1} = f_m(y_m W_m + b_m)."""

    def __init__(self, weights: list, biases: list):
        self.weights, self.biases = weights, biases
        self.parameters = [*weights, *biases]
        self.sizes = (weights[0].shape[0], *(w.shape[1] for w in weights))
        last = len(weights) - 1
        self.transfers = ["sigmoid" if m == last else "identity" if m == last // 2 else "tanh" for m in range(len(weights))]

    @classmethod
    def initial(cls, sizes, rng: np.random.Generator, run) -> Autoencoder:
        """Glorot-uniform weights and, as in the notebook, biases. Drawn by numpy: the same numbers on every device."""
        weights, biases = [], []
        for a, b in itertools.pairwise(sizes):
            limit = np.sqrt(6.0 / (a + b))
            weights.append(run.put(rng.uniform(-limit, limit, (a, b)).astype(run.dtype)))
            biases.append(run.put(rng.uniform(-limit, limit, b).astype(run.dtype)))
        return cls(weights, biases)

    def transfer(self, m: int, a: torch.Tensor) -> torch.Tensor:
        """f_m of a pre-activation (batch, d_{m+1})."""
        name = self.transfers[m]
        return a if name == "identity" else torch.tanh(a) if name == "tanh" else torch.sigmoid(a)

    def forward(self, x: torch.Tensor) -> tuple[list, list]:
        """(y, a): y[m] is the input of layer m and y[L] the reconstruction; a[m] is the pre-activation of layer m."""
        y, a = [x], []
        for m, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            a.append(torch.addmm(bias, y[-1], weight))
            y.append(self.transfer(m, a[-1]))
        return y, a

    def signals(self, y: list) -> list:
        """The gradients of the loss (mean over the batch) by each layer's pre-activation: list of (batch, d_{m+1})."""
        found = [(y[-1] - y[0]) / len(y[0])]
        for m in range(len(self.weights) - 1, 0, -1):
            back = found[0] @ self.weights[m].T
            found.insert(0, back if self.transfers[m - 1] == "identity" else back * (1.0 - y[m] * y[m]))
        return found

    def gradients(self, inputs: list, signals: list) -> list:
        """Y^T G of every weight, then the sums of G of every bias: the order of `parameters`."""
        return [y.T @ g for y, g in zip(inputs, signals)] + [g.sum(0) for g in signals]

    def set_gradients(self, gradients: list) -> None:
        for parameter, gradient in zip(self.parameters, gradients):
            parameter.grad = gradient

    def back_propagate(self, batch: torch.Tensor) -> None:
        """Leave the gradient of the loss in `.grad` of every parameter."""
        y, _ = self.forward(batch)
        self.set_gradients(self.gradients(y, self.signals(y)))

    def losses(self, x: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each image in nats, summed over pixels: (rows,)."""
        logits = self.forward(x)[1][-1]
        return (logits.clamp(min=0) - logits * x + torch.log1p(torch.exp(-logits.abs()))).sum(1)
