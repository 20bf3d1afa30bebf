"""Expert Choice: every expert takes its k = n c / E best tokens, so loads are even by construction and nothing is dropped.

Zhou et al., Mixture-of-Experts with Expert Choice Routing, arXiv 2202.09368. Softmax over the experts in float32, the top k tokens
of each expert (n: all tokens of the call), outputs weighted by the chance without renormalising; a token that nobody takes passes
by the residual. No load loss. It looks at later tokens, so a causal model is refused. Left out: the cap of experts per token.
"""

from __future__ import annotations

import torch
from torch import nn

from effbench import Bound, Claim, Flops, param

from ..shared.transformer import feed_forward_flops
from . import dropless, routing
from .task import ExpertLayer


class ExpertChoice(ExpertLayer):
    name = "expert-choice"
    version = 2
    claims = (
        Claim(
            "Training converges more than twice as fast as with top-1 or top-2 gating; here: fewer bits per byte at equal steps",
            "Zhou et al., arXiv 2202.09368, abstract",
            parts=(Bound("quality.bits-per-byte", "<", 1.0, over="top-2", budget="steps"),),
            size="quick",
        ),
        Claim(
            "Fewer bits per byte than top-2 also at equal seconds of training",
            "this benchmark's question: equal active FLOPs are not equal seconds",
            parts=(Bound("quality.bits-per-byte", "<", 1.0, over="top-2", budget="time"),),
            size="quick",
        ),
    )

    experts = param(8, sweep=[4, 8, 16, 64])
    capacity = param(2.0, sweep=[0.5, 1.0, 2.0])

    def skip(self, given):
        return "an expert that takes its best tokens looks at later ones" if given.causal else super().skip(given)

    def layer(self, given):
        return Choice(given.d, given.width, self.experts, self.taken)

    def taken(self, n: int) -> int:
        """Tokens that each expert takes out of n."""
        return min(n, routing.slots(self.capacity, n, self.experts))

    def layer_flops(self, n, training=False):
        given = self.given
        gate, places = 2.0 * n * given.d * self.experts, self.experts * self.taken(n)
        flops = gate + feed_forward_flops(places, given.d, given.width)
        return Flops(flops, useful=flops, dense=feed_forward_flops(n, given.d, 2 * given.width), other=5.0 * n * self.experts)


class Choice(nn.Module):
    def __init__(self, d: int, width: int, count: int, taken):
        super().__init__()
        self.gate = nn.Linear(d, count, bias=False)
        nn.init.normal_(self.gate.weight, std=0.02)
        self.experts, self.taken, self.token = routing.Experts(count, d, width), taken, None

    def forward(self, x, ids=None):
        n, chances = len(x), routing.chances(self.gate, x)
        weight, token = chances.T.topk(self.taken(n), -1, sorted=False)  # [experts, taken]
        self.token, self.n, flat = token, n, token.flatten()
        out = self.experts(x.index_select(0, flat).view(*token.shape, -1)).flatten(0, 1)
        if x.is_cuda and not torch.is_grad_enabled():
            row, start = dropless.by_token(flat, n)
            return dropless.combine(out, row, weight.flatten()[row], n, start=start)
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.zeros_like(x, dtype=wide).index_add(0, flat, out.to(wide) * weight.reshape(-1, 1).to(wide)).to(x.dtype)

    def shares(self) -> dict:
        """As routing.Shares: worked out when asked."""
        if self.token is None:
            return {}
        served = torch.zeros(self.n, device=self.token.device).index_fill(0, self.token.flatten(), 1.0)
        return {"dropped": 0.0, "unserved": 1 - served.mean(), "largest-load": 1.0}
