"""Separate sizes: a network of its own for every length ("fixed features"), the rival that MRL replaces.

Kusupati et al., arXiv:2205.13147, train them with the full recipe each: at a budget in steps every network gets all of them, which
costs as many times the FLOPs as there are sizes. At a budget like another method's FLOPs they share what that method spends.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .encoder import step_flops
from .recipe import Heads
from .task import Representation


class SeparateSizes(Representation):
    name = "separate-sizes"
    version = 1

    def outputs(self, spec):
        return spec.sizes

    def heads(self, spec):
        return Heads(spec.sizes, spec.classes, self.run.seed)

    def loss(self, nets, heads, inputs, labels):
        """The networks share no number, so that the sum of their losses trains each of them alone."""
        return torch.stack([F.cross_entropy(head(net(inputs)), labels) for net, head in zip(nets, heads.layers)]).sum()

    def step_flops(self, given):
        spec = given.encoder
        return sum(step_flops(spec, m, m * spec.classes) for m in spec.sizes)
