"""The network that is selected for and that is scored: one hidden layer, ReLU, softmax; and its training, for every arm the same.

A mask over the features is one vector for the whole batch, so (x o m) W = x (m o W): masking costs d h multiplications and its
gradient no product over the batch. A masked step therefore has the matmuls of a plain one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch._dynamo  # torch.optim imports it in its first step, seconds that would be charged to the build
from torch.nn.functional import cross_entropy


class Network:
    """parameters: W1 [d, h], b1 [h], W2 [h, c], b2 [c]; drawn by numpy, so that one seed gives one start on every device."""

    def __init__(self, parameters: list[torch.Tensor]):
        self.parameters = parameters

    @classmethod
    def initial(cls, features: int, hidden: int, classes: int, rng: np.random.Generator, run) -> Network:
        first = rng.standard_normal((features, hidden)) * np.sqrt(2.0 / features)
        second = rng.standard_normal((hidden, classes)) * np.sqrt(1.0 / hidden)
        arrays = (first, np.zeros(hidden), second, np.zeros(classes))
        return cls([run.put(array.astype(np.float32)).requires_grad_() for array in arrays])

    def logits(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [n, d], mask [d] or None -> [n, classes]."""
        w1, b1, w2, b2 = self.parameters
        first = w1 if mask is None else mask[:, None] * w1
        return torch.addmm(b2, torch.relu(torch.addmm(b1, x, first)), w2)

    def loss(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return cross_entropy(self.logits(x, mask), y)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return (*self.parameters[0].shape, self.parameters[2].shape[1])


def batches(rows: int, batch: int, steps: int, rng: np.random.Generator, run) -> Iterator[torch.Tensor]:
    """`steps` index vectors on the device: every epoch a fresh shuffle, incomplete last batches dropped."""
    batch = min(batch, rows)
    in_epoch = rows // batch
    for step in range(steps):
        place = step % in_epoch
        if place == 0:
            order = run.put(rng.permutation(rows))
        yield order[place * batch : (place + 1) * batch]


def adam(groups: list[dict]) -> torch.optim.Adam:
    return torch.optim.Adam(groups, fused=True)


def decay(optimiser: torch.optim.Optimizer, rates: list[float], step: int, steps: int) -> None:
    """Linear decay from the rates of the groups to (nearly) 0."""
    for group, rate in zip(optimiser.param_groups, rates):
        group["lr"] = rate * (1.0 - step / steps)


def train(net: Network, x, y, *, steps: int, batch: int, rate: float, rng, run) -> Iterator[int]:
    """Adam with linear decay on the cross-entropy; yields the samples of each step done."""
    optimiser = adam([{"params": net.parameters, "lr": rate}])
    for step, rows in enumerate(batches(len(x), batch, steps, rng, run)):
        decay(optimiser, [rate], step, steps)
        optimiser.zero_grad()
        net.loss(x[rows], y[rows]).backward()
        optimiser.step()
        yield len(rows)


def step_flops(features: int, hidden: int, classes: int, batch: int) -> float:
    """Matmuls of a training step: forward, weight gradients, and the input gradient of the second layer alone."""
    return 2.0 * batch * (2 * features * hidden + 3 * hidden * classes)
