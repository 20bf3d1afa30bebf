"""Hash routing: the byte itself says which expert a token goes to. Nothing is learned: the trivial rival of every router.

Roller et al., Hash Layers for Large Sparse Models, arXiv 2106.04426. A fixed random table maps byte values to experts, as evenly
over the values as it goes; one expert of width 2 f a token has the active FLOPs of two of width f. Bytes differ in frequency, so
loads are uneven, and what is over capacity is dropped; served, nothing is dropped where the grouped product runs (dropless.py).
Left out: hashes of several bytes, balanced by frequency.
"""

from __future__ import annotations

import torch
from torch import nn

from effbench import Choice, Flops, param

from ..shared.transformer import feed_forward_flops
from . import dropless, routing
from .task import VOCABULARY, ExpertLayer


class HashRouting(ExpertLayer):
    name = "hash-routing"
    version = 2

    experts = param(8, sweep=[4, 8, 16, 64])
    # Tuned, as of `top-2`; up to 4, since a frequent byte alone fills a room.
    capacity = param(2.0, sweep=[1.0, 1.25, 2.0], tune=Choice(2.0, 4.0))
    kernel = param("auto", sweep=["padded", "grouped"])

    def layer(self, given):
        if not 1 <= self.experts <= VOCABULARY:
            raise ValueError(f"experts={self.experts} must be 1 to {VOCABULARY}, the number of byte values")
        routing.slots(self.capacity, given.tokens, self.experts)
        return Hashed(given.d, 2 * given.width, self.experts, self.capacity, grouped=self.grouped())

    def grouped(self) -> bool:
        return dropless.chosen(self.kernel, self.run, self.given.d, 2 * self.given.width)

    def layer_flops(self, n, training=False):
        given = self.given
        room = self.experts * min(n, routing.slots(self.capacity, n, self.experts))
        if not training and self.grouped():
            room = n
        useful = feed_forward_flops(n, given.d, 2 * given.width)
        return Flops(
            feed_forward_flops(room, given.d, 2 * given.width), useful=useful, dense=useful, other=room * 2.0 * given.width
        )


class Hashed(nn.Module):
    def __init__(self, d: int, width: int, count: int, capacity: float, grouped: bool = False):
        super().__init__()
        self.experts, self.capacity, self.grouped = routing.Experts(count, d, width), capacity, grouped
        self.shares = routing.Shares()
        self.register_buffer("table", torch.randperm(VOCABULARY) % count)

    def forward(self, x, ids):
        n, count = len(x), len(self.experts.up)
        expert = self.table[ids]
        if self.grouped and not self.training:
            self.shares.note(expert, None, None, n, count)
            return dropless.serve(x, expert[:, None], None, self.experts)
        token = torch.arange(n, device=x.device)
        room = min(n, routing.slots(self.capacity, n, count))
        out, kept = routing.padded(x, token, expert, torch.ones_like(x[:, 0]), self.experts, room)
        self.shares.note(expert, token, kept, n, count)
        return out
