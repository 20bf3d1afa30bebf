"""Expert layers at fixed capacity: tokens go into a buffer [experts, slots, d], experts run as two batched products, results go back.

No loop over tokens or experts, no one-hot of tokens x experts x slots. PyTorch.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import gelu


class Experts(nn.Module):
    """`count` layers gelu(x W1) W2 of width `width`, drawn each like a dense layer of that width. [count, slots, d] to the same."""

    def __init__(self, count: int, d: int, width: int):
        super().__init__()
        self.up = nn.Parameter(torch.empty(count, d, width).uniform_(-(d**-0.5), d**-0.5))
        self.down = nn.Parameter(torch.empty(count, width, d).uniform_(-(width**-0.5), width**-0.5))

    def forward(self, x):
        return torch.bmm(gelu(torch.bmm(x, self.up)), self.down)


def logits(gate: nn.Linear, x):
    """x W in float32 at least, also from bfloat16 tokens and weights: logits in half precision tie where experts are close."""
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.is_cuda and x.dtype != wide and not torch.is_grad_enabled():
        return torch.mm(x, gate.weight.T, out_dtype=wide)
    return x.to(wide) @ gate.weight.T.to(wide)


def chances(gate: nn.Linear, x):
    """Softmax over the experts."""
    return torch.softmax(logits(gate, x), -1)


def slots(capacity: float, assignments: int, count: int) -> int:
    """Slots of one expert: capacity times the mean load, rounded up, at least 1."""
    if not capacity > 0 or count < 1:
        raise ValueError(f"capacity={capacity} must be positive and experts={count} at least 1")
    return max(1, math.ceil(capacity * assignments / count - 1e-9))


def padded(x, token, expert, weight, experts: Experts, room: int):
    """sum over assignments (token, expert, weight), in order of precedence, of weight * f_expert(x[token]): [n, d]; and what was kept.

    Each expert takes the first `room` of its assignments; what is over contributes nothing.
    """
    count = len(experts.up)
    # Stable: among the assignments of one expert the order of precedence stays.
    ranked, order = expert.sort(stable=True)
    start = torch.searchsorted(ranked, torch.arange(count, device=x.device))
    rank = torch.arange(len(ranked), device=x.device) - start[ranked]
    kept = rank < room
    # What is dropped goes to one place behind all slots, where nobody reads: sizes do not depend on the data.
    place = torch.where(kept, ranked * room + rank, count * room)
    buffer = x.new_zeros(count * room + 1, x.shape[1]).index_copy(0, place, x[token[order]])
    out = experts(buffer[:-1].view(count, room, -1)).flatten(0, 1)
    out = torch.cat((out, out.new_zeros(1, out.shape[1])))[place] * weight[order][:, None].to(x.dtype)
    return torch.zeros_like(x).index_add(0, token[order], out), torch.zeros_like(kept).scatter(0, order, kept)


class Shares:
    """What became of the assignments of the last call, for the record. Worked out when asked: it would wait for the device."""

    def __init__(self):
        self.routed = None

    def note(self, expert, token, kept, n: int, count: int) -> None:
        """token and kept are None where every token got an expert and nothing was dropped."""
        self.routed = (expert, token, kept, n, count)

    def __call__(self) -> dict:
        """dropped: share of assignments over capacity; unserved: share of tokens that no expert took; largest-load: of the mean."""
        if self.routed is None:
            return {}
        expert, token, kept, n, count = self.routed
        expert = expert.flatten().to(torch.int64)
        load = torch.bincount(expert, minlength=count).max() * count / max(len(expert), 1)
        if kept is None:
            return {"dropped": 0.0, "unserved": 0.0, "largest-load": load}
        served = torch.zeros(n, dtype=torch.bool, device=kept.device).index_put((token[kept],), torch.ones_like(kept[kept]))
        return {"dropped": 1 - kept.float().mean(), "unserved": 1 - served.float().mean(), "largest-load": load}
