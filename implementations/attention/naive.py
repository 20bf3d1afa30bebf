"""Softmax attention written down as it is defined, in PyTorch: the whole score matrix, its softmax, times the values.

Vaswani et al., Attention Is All You Need, arXiv 1706.03762, equation (1). Two [length, length] arrays a head live at once;
torch's softmax subtracts each row's maximum, so large logits are safe. Left out: dropout, padding masks.
"""

from __future__ import annotations

import torch

from .differentiable import DifferentiableAttention
from .task import free_host_memory


class Naive(DifferentiableAttention):
    name = "naive"
    backend = "torch"
    deterministic = True
    exact = True

    def build(self, given, run):
        super().build(given, run)
        self.room = torch.cuda.mem_get_info()[0] if run.device == "cuda" else free_host_memory()
        self._mask = None

    def compute(self, q, k, v):
        n, d = q.shape[-2:]
        self.require(2 * q.shape[0] * q.shape[1] * n * n * q.element_size(), f"the score matrix of {n} tokens and its softmax")
        # Scaling q costs n d multiplications instead of n^2.
        scores = (q * d**-0.5) @ k.mT
        if self.causal:
            scores.masked_fill_(self.future(n, q.device), float("-inf"))
        return torch.softmax(scores, dim=-1) @ v

    def future(self, n: int, device):
        """True above the diagonal. Kept between calls: building it anew is no part of attention."""
        if self._mask is None or len(self._mask) != n:
            self._mask = torch.ones(n, n, dtype=torch.bool, device=device).triu_(1)
        return self._mask

    def flops(self, phase, case, tally):
        # All n^2 entries are multiplied out, the masked ones too.
        return self.softmax_flops(phase, case, case["length"] ** 2 if case else 0)
