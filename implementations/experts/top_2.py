"""Top-2 token choice: a gate picks the two best of E experts for each token, up to a capacity per expert.

Du et al., GLaM, arXiv 2112.06905, after GShard (Lepikhin et al., arXiv 2006.16668). Softmax over all experts in float32, the two
weights divided by their sum; all first choices before any second choice, then left to right; what is over capacity is dropped. A
load loss E sum_e f_e p_e (1 for an even load) times `balance` keeps experts in use. Capacity is relative to the mean load 2 n / E.

Served, nothing is dropped where the grouped product runs (dropless.py), and `capacity_served` says nothing. kernel="padded" serves
from buffers of that capacity, as "auto" does where the product does not run. Training always has buffers of `capacity`.

In a causal model a later token's first choice may evict an earlier one's second choice: a leak, only where tokens are dropped.
Left out: dropping second choices at random, the router's z-loss, noise.
"""

from __future__ import annotations

import torch
from torch import nn

from effbench import Bound, Choice, Claim, Flops, param

from ..shared.transformer import feed_forward_flops
from . import dropless, routing
from .task import ExpertLayer


class Top2(ExpertLayer):
    name = "top-2"
    version = 2
    claims = (
        Claim(
            "A better mean over 29 tasks than a dense model with half of its inference FLOPs (1.2T parameters)",
            "Du et al., arXiv 2112.06905, abstract",
            untestable="needs the scale; bits per byte of a small network at equal active FLOPs are measured instead",
        ),
        Claim(
            "Lower loss than a dense layer of the same active FLOPs a token, at equal steps",
            "the direction of Du et al., arXiv 2112.06905; the bound is this benchmark's, at small size",
            parts=(Bound("quality.bits-per-byte", "<", 1.0, over="dense", budget="steps"),),
            size="quick",
        ),
        Claim(
            "Lower loss than that dense layer also at equal seconds of training",
            "this benchmark's question: equal active FLOPs are not equal seconds",
            parts=(Bound("quality.bits-per-byte", "<", 1.0, over="dense", budget="time"),),
            size="quick",
        ),
    )

    experts = param(8, sweep=[4, 8, 16, 64])
    # Tuned: what is dropped in training costs bits, the rooms cost seconds; the active FLOPs of a token stay the same.
    capacity = param(1.25, sweep=[1.0, 1.25, 2.0], tune=Choice(1.25, 2.0))
    capacity_served = param(2.0)
    balance = param(0.01, sweep=[0.0, 0.01])
    kernel = param("auto", sweep=["padded", "grouped"])

    def layer(self, given):
        if self.experts < 2:
            raise ValueError(f"experts={self.experts}: top-2 needs at least 2")
        if self.balance < 0:
            raise ValueError(f"balance={self.balance} must not be negative")
        routing.slots(self.capacity, 2 * given.tokens, self.experts)
        return TokenChoice(
            given.d, given.width, self.experts, self.capacity, self.capacity_served, self.balance, grouped=self.grouped()
        )

    def grouped(self) -> bool:
        return dropless.chosen(self.kernel, self.run, self.given.d, self.given.width)

    def layer_flops(self, n, training=False):
        """executed: gate and full buffers at the capacity of the phase, or the rows themselves; useful: two experts a token."""
        given = self.given
        gate = 2.0 * n * given.d * self.experts
        room = self.experts * routing.slots(self.capacity if training else self.capacity_served, 2 * n, self.experts)
        if not training and self.grouped():
            room = 2 * n
        return Flops(
            gate + feed_forward_flops(room, given.d, given.width),
            useful=gate + feed_forward_flops(2 * n, given.d, given.width),
            dense=feed_forward_flops(n, given.d, 2 * given.width),
            other=5.0 * n * self.experts + room * given.width + 4.0 * n * given.d,
        )


class TokenChoice(nn.Module):
    def __init__(self, d: int, width: int, count: int, capacity: float, capacity_served: float, balance: float, grouped=False):
        super().__init__()
        self.gate = nn.Linear(d, count, bias=False)
        nn.init.normal_(self.gate.weight, std=0.02)
        self.experts = routing.Experts(count, d, width)
        self.capacity, self.capacity_served, self.balance = capacity, capacity_served, balance
        self.grouped, self.auxiliary, self.shares = grouped, 0.0, routing.Shares()

    def forward(self, x, ids=None):
        n, count = len(x), self.gate.out_features
        if self.grouped and not self.training:
            expert, weight = dropless.two_best(routing.logits(self.gate, x))
            self.shares.note(expert, None, None, n, count)
            return dropless.serve(x, expert, weight, self.experts)
        chances = routing.chances(self.gate, x)
        best, chosen = chances.topk(2, -1)
        weight = best / best.sum(-1, keepdim=True)
        # Choice-major: the first choices of all tokens come before the second ones.
        expert, weight = chosen.T.flatten(), weight.T.flatten()
        token = torch.arange(n, device=x.device).repeat(2)
        room = routing.slots(self.capacity if self.training else self.capacity_served, 2 * n, count)
        out, kept = routing.padded(x, token, expert, weight, self.experts, room)
        if self.training:
            first = torch.bincount(chosen[:, 0], minlength=count) / n  # before anything is dropped, without gradient
            self.auxiliary = self.balance * count * (first * chances.mean(0)).sum()
        self.shares.note(expert, token, kept, n, count)
        return out
