"""Exact attention in blocks with an online softmax: the memory baseline, no faster in FLOPs but O(n) in memory.

Rabe and Staats, Self-attention Does Not Need O(n^2) Memory, arXiv 2112.05682 (the running maximum and sum: Milakov and
Gimelshein, arXiv 1805.02867). A block of queries goes over the blocks of keys and values; running maximum, sum and weighted
sum of values are rescaled when the maximum grows, so large logits are safe and no [length, length] array exists.

The Python loop is over blocks: it is the algorithm, and its blocks are large enough that the matmuls dominate. Key blocks in
the future of a whole query block are skipped. Left out: the checkpointed backward pass (autograd works, but it keeps all
blocks), and the paper's map over single queries.
"""

from __future__ import annotations

import torch

from effbench import Bound, Claim, param

from .task import Attention, visited


class Chunked(Attention):
    name = "chunked"
    backend = "torch"
    deterministic = True
    exact = True
    claims = (
        Claim(
            "At 16,384 tokens the memory overhead of self-attention is reduced by 59x for inference. Asked here of the whole peak on "
            "the device, with inputs and output in it, which is the harder test",
            "Rabe and Staats, arXiv 2112.05682, abstract",
            parts=(Bound("serve.device_peak_memory", "<=", 1 / 59, over="naive", case="n-16384"),),
        ),
    )

    query_block = param(256, sweep=[128, 256, 512, 1024])
    key_block = param(512, sweep=[256, 512, 1024, 4096])

    def build(self, given, run):
        if self.query_block < 1 or self.key_block < 1:
            raise ValueError(f"blocks must hold at least 1 token, not query_block={self.query_block}, key_block={self.key_block}")
        super().build(given, run)

    def compute(self, q, k, v):
        batch, heads, n, d = q.shape
        q, k, v = (x.reshape(batch * heads, n, d) for x in (q, k, v))
        out = torch.empty_like(q)
        for start in range(0, n, self.query_block):
            stop = min(start + self.query_block, n)
            out[:, start:stop] = self.rows(q[:, start:stop] * d**-0.5, k, v, start, stop if self.causal else n)
        return out.view(batch, heads, n, d)

    def rows(self, q, k, v, start: int, end: int):
        """Attention of one block of scaled queries, which begins at token `start`, over the keys before `end`.

        The weights are exp(score - maximum). Gradients do not flow through the maximum: it cancels.
        """
        # Half precision is for the matmuls; the running sums would drown in it.
        wide = torch.promote_types(q.dtype, torch.float32)
        total = sums = maximum = None
        for left in range(0, end, self.key_block):
            right = min(left + self.key_block, end)
            weights = torch.bmm(q, k[:, left:right].mT).to(wide)
            if self.causal and right - 1 > start:
                # In-block mask: key left + j is after query start + i. Key 0 comes first, so no row's maximum is ever -inf.
                weights.masked_fill_(future(q.shape[1], right - left, start - left, q.device), float("-inf"))
            top = weights.detach().amax(-1, keepdim=True)
            top = top if maximum is None else torch.maximum(maximum, top)
            weights.sub_(top).exp_()
            values = torch.bmm(weights.to(v.dtype), v[:, left:right])
            if maximum is None:
                total, sums = values.to(wide), weights.sum(-1, keepdim=True)
            else:
                shrink = torch.exp(maximum - top)
                total = total.mul_(shrink).add_(values)
                sums = sums.mul_(shrink).add_(weights.sum(-1, keepdim=True))
            maximum = top
        return (total / sums).to(v.dtype)

    def flops(self, phase, case, tally):
        if phase == "build":
            return self.softmax_flops(phase, case, 0)
        n = case["length"]
        # A causal query block meets the keys up to its own last token; its last key block is cut there.
        return self.softmax_flops(phase, case, visited(n, self.query_block) if self.causal else n * n)


def future(rows: int, columns: int, ahead: int, device):
    """True where column j is more than `ahead` beyond row i."""
    return torch.ones(rows, columns, dtype=torch.bool, device=device).triu_(ahead + 1)
