"""The encoder: inputs -> trunk [n, hidden] -> one linear layer [n, d]; its cost by formula. PyTorch.

A prefix of the embedding needs only the first rows of the last layer, and a projection of it (PCA, random) is a smaller last layer:
whatever the arm, a representation of m numbers costs the trunk and 2 hidden m FLOPs.
"""

from __future__ import annotations

import torch
from torch import nn

from ..shared import cnn
from .sources import BATCH, Encoder


class Mlp(nn.Module):
    """float32 [n, inputs] -> [n, out] through one layer of ReLUs."""

    def __init__(self, inputs: int, width: int, out: int, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden, self.linear = nn.Linear(inputs, width), nn.Linear(width, out)

    def forward(self, x):
        return self.linear(torch.relu(self.hidden(x)))


def network(spec: Encoder, out: int, seed: int, device: str = "cpu") -> nn.Module:
    """The encoder with `out` outputs, initialised from the seed."""
    if spec.side:
        return cnn.CNN(spec.width, classes=out, seed=seed).to(device)
    return Mlp(spec.inputs, int(spec.width), out, seed).to(device)


def trunk(net: nn.Module, x):
    """What stands before the last linear layer, [n, hidden]."""
    return net.features(x).mean((2, 3)) if isinstance(net, cnn.CNN) else torch.relu(net.hidden(x))


def served(net: nn.Module) -> nn.Module:
    """The form to serve: batch norm folded in."""
    return cnn.folded(net) if isinstance(net, cnn.CNN) and not net_is_folded(net) else net


def net_is_folded(net: cnn.CNN) -> bool:
    return not any(isinstance(part, nn.BatchNorm2d) for part in net.features)


def empty(spec: Encoder, out: int, device: str) -> nn.Module:
    """A served network whose numbers are to be loaded."""
    if spec.side:
        return cnn.CNN(spec.width, classes=out, folded=True).to(device).eval()
    return network(spec, out, 0, device)


def hidden(spec: Encoder) -> int:
    return cnn.channels(spec.width)[-1] if spec.side else int(spec.width)


def forward_flops(spec: Encoder, out: int) -> int:
    """Of one sample, with `out` outputs."""
    if spec.side:
        return cnn.forward_flops(spec.width, spec.side, out)
    return 2 * int(spec.width) * (spec.inputs + out)


def training_flops(spec: Encoder, out: int) -> int:
    """Of one sample in one step: three forward passes, less the gradient of the inputs."""
    if spec.side:
        return cnn.training_flops(spec.width, spec.side, out)
    return 3 * forward_flops(spec, out) - 2 * int(spec.width) * spec.inputs


def step_flops(spec: Encoder, out: int, head: int) -> float:
    """One step on one batch of an encoder with `out` outputs and linear heads of `head` weights in all."""
    return BATCH * (training_flops(spec, out) + 6.0 * head)
