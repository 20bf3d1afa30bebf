"""The dense layer of width 2 f: the same active FLOPs a token as two experts of width f. The arm to beat.

Vaswani et al., arXiv 1706.03762, with GELU. Every token is treated alike, nothing is routed.
"""

from __future__ import annotations

from effbench import Flops

from ..shared.transformer import FeedForward, feed_forward_flops
from .task import ExpertLayer


class Dense(ExpertLayer):
    name = "dense"

    def layer(self, given):
        return FeedForward(given.d, 2 * given.width)

    def layer_flops(self, n, training=False):
        flops = feed_forward_flops(n, self.given.d, 2 * self.given.width)
        return Flops(flops, useful=flops, dense=flops)
