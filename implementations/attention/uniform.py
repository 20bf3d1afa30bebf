"""What attention is without queries and keys: every visible value weighs the same. The floor under all approximations.

A causal head takes the running mean of the values, any other their mean. An approximation of softmax attention whose relative error is
no smaller knows nothing of the scores that it approximates, at a cost that this arm does not have.
"""

from __future__ import annotations

import torch

from effbench import Flops

from .differentiable import DifferentiableAttention, backward


class Uniform(DifferentiableAttention):
    name = "uniform"
    backend = "torch"
    deterministic = True

    def compute(self, q, k, v):
        # Half precision would lose the sum of a long sequence.
        if not self.causal:
            return v.mean(-2, keepdim=True, dtype=torch.float32).to(v.dtype).expand_as(v).contiguous()
        seen = torch.arange(1, v.shape[-2] + 1, device=v.device, dtype=torch.float32)
        return (v.cumsum(-2, dtype=torch.float32) / seen[:, None]).to(v.dtype)

    def flops(self, phase, case, tally):
        """executed: no product at all; other: an addition a value, and a division where the mean is a running one; backward, which only
        reaches the values, the same again."""
        if phase == "build":
            return Flops(0.0)
        n, heads = case["length"], self.batch * self.heads
        values = heads * n * self.head_dim
        other = (2.0 if self.causal else 1.0) * values
        if backward(case):
            return Flops(0.0, useful=0.0, dense=12.0 * values * n, other=2.0 * other)
        return Flops(0.0, useful=0.0, dense=4.0 * values * n, other=other)
