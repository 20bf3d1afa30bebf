"""Attention inside the leaves of a tree, without a loop over leaves, heads or tokens, and means of values along its paths. PyTorch.

Queries and keys are each sorted by leaf and cut into blocks. A leaf is a segment of both orders, so a block of queries meets the
blocks of keys between the segment of its first and that of its last leaf: only those pairs are multiplied, as one batched
product, and a softmax that spans several pairs is put together by its maximum and its sums. The number of pairs depends on the
data; reading it waits for the device. A causal mask skips nothing: leaves are short, and their blocks overlap in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Plan:
    """Orders [groups, n] that sort by leaf, sorted leaves [groups, blocks, block] (padded with -1 and -2), and the pairs of blocks
    as flat indices into groups * blocks. A group is one head of one sequence."""

    order_q: torch.Tensor
    order_k: torch.Tensor
    leaf_q: torch.Tensor
    leaf_k: torch.Tensor
    query_block: torch.Tensor
    key_block: torch.Tensor
    block: int


def plan(leaf_q: torch.Tensor, leaf_k: torch.Tensor, count: int, block: int) -> Plan:
    """leaf_q and leaf_k: int64 [batch, heads, n], values 0 .. count - 1."""
    n = leaf_q.shape[-1]
    block = min(block, n)
    blocks = -(-n // block)
    # Stable: inside a leaf tokens stay in order.
    sorted_q, order_q = leaf_q.flatten(0, 1).sort(dim=-1, stable=True)
    sorted_k, order_k = leaf_k.flatten(0, 1).sort(dim=-1, stable=True)
    edges = torch.arange(count + 1, device=leaf_q.device).expand(len(sorted_k), -1).contiguous()
    start = torch.searchsorted(sorted_k, edges)  # [groups, count + 1]: where each leaf's keys begin
    first = torch.arange(0, n, block, device=leaf_q.device)
    last = (first + block - 1).clamp_max(n - 1)
    low = start.gather(-1, sorted_q[:, first])
    high = start.gather(-1, sorted_q[:, last] + 1)
    from_block = low // block
    number = torch.where(high > low, -(-high // block) - from_block, 0).flatten()
    query_block = torch.repeat_interleave(number)
    within = torch.arange(len(query_block), device=leaf_q.device) - (number.cumsum(0) - number)[query_block]
    key_block = query_block // blocks * blocks + from_block.flatten()[query_block] + within
    over = blocks * block - n
    cut = [pad(x, (0, over), value=fill).unflatten(-1, (blocks, block)) for x, fill in ((sorted_q, -1), (sorted_k, -2))]
    return Plan(order_q, order_k, *cut, query_block, key_block, block)


def attention(q, k, v, plan: Plan, causal: bool):
    """Softmax over the visible keys of the query's leaf; where there are none, the token's own value. [batch, heads, n, d]."""
    shape, block = q.shape, plan.block
    wide = torch.promote_types(q.dtype, torch.float32)
    if q.dtype == torch.float16:  # scores of long vectors pass its range
        q, k = q.to(wide), k.to(wide)
    dtype = v.dtype
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    qs = blocked(q * shape[-1] ** -0.5, plan.order_q, block)
    ks, vs = blocked(k, plan.order_k, block), blocked(v, plan.order_k, block)
    rows, columns = plan.query_block, plan.key_block
    scores = torch.bmm(qs[rows], ks[columns].mT).to(wide)
    visible = plan.leaf_q.flatten(0, 1)[rows][:, :, None] == plan.leaf_k.flatten(0, 1)[columns][:, None, :]
    if causal:
        at_q, at_k = (blocked(order[..., None], order, block, own=True)[..., 0] for order in (plan.order_q, plan.order_k))
        visible &= at_q[rows][:, :, None] >= at_k[columns][:, None, :]
    scores = scores.masked_fill(~visible, float("-inf"))
    top = torch.full(qs.shape[:2], float("-inf"), dtype=wide, device=q.device)
    top = top.scatter_reduce(0, rows[:, None].expand(-1, block), scores.detach().amax(-1), "amax")
    empty = top == float("-inf")
    weights = torch.exp(scores - top.masked_fill(empty, 0.0)[rows][..., None])
    sums = torch.zeros_like(top).index_add(0, rows, weights.sum(-1))
    values = torch.bmm(weights.to(v.dtype), vs[columns]).to(wide)
    total = torch.zeros(*qs.shape[:2], v.shape[-1], dtype=wide, device=q.device).index_add(0, rows, values)
    out = (total / sums.masked_fill(empty, 1.0)[..., None]).unflatten(0, (len(q), -1)).flatten(1, 2)[:, : shape[2]]
    back = plan.order_q[..., None].expand(-1, -1, shape[-1])
    alone = empty.unflatten(0, (len(q), -1)).flatten(1, 2)[:, : shape[2], None]
    out = torch.where(alone, v.gather(1, back).to(wide), out)
    return torch.zeros_like(out).scatter(1, back, out).to(dtype).view(shape)


def blocked(x, order, block: int, own: bool = False):
    """x [groups, n, d] in the order given (already there if `own`), cut into [groups * blocks, block, d], padded with zeros."""
    x = x if own else x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
    return pad(x, (0, 0, 0, -x.shape[1] % block)).unflatten(1, (-1, block)).flatten(0, 1)


def matches(leaf_q, leaf_k, count: int) -> float:
    """Pairs of a query and a key in one leaf, over all heads and sequences."""
    return float((counts(leaf_q, count) * counts(leaf_k, count)).sum())


def counts(leaf, count: int):
    """Tokens in each leaf, float64 [batch, heads, count]."""
    ones = torch.ones_like(leaf, dtype=torch.float64)
    return ones.new_zeros(*leaf.shape[:2], count).scatter_add(2, leaf, ones)


def node_means(leaf_k, v, height: int) -> list:
    """For each level from the root to the leaves, the mean value of the node above each leaf: [batch, heads, 2^h, d].

    A node without keys takes its parent's.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    count = 2**height
    number = counts(leaf_k, count).to(wide)[..., None]
    sums = torch.zeros(*v.shape[:2], count, v.shape[3], dtype=wide, device=v.device)
    sums = sums.scatter_add(2, leaf_k[..., None].expand(v.shape), v.to(wide))
    found = []
    for level in range(height + 1):
        below = 2 ** (height - level)
        here, many = (x.unflatten(2, (-1, below)).sum(3).repeat_interleave(below, 2) for x in (sums, number))
        mean = here / many.clamp_min(1)
        found.append(mean if level == 0 else torch.where(many > 0, mean, found[-1]))
    return found


def path_means(leaf_q, leaf_k, v, height: int, causal: bool) -> list:
    """The same for each query, [batch, heads, n, d] a level; causal: of the keys up to the query's own position."""
    if not causal:
        return [x.gather(2, leaf_q[..., None].expand(v.shape)) for x in node_means(leaf_k, v, height)]
    wide = torch.promote_types(v.dtype, torch.float32)
    n = v.shape[2]
    at = torch.arange(n, device=v.device)
    found = []
    for level in range(height + 1):
        node_q, node_k = leaf_q >> (height - level), leaf_k >> (height - level)
        # Keys of one node in the order of time are a segment: prefix sums differ by what a query may see of it.
        places, order = (node_k * n + at).sort(-1)
        sums = v.to(wide).gather(2, order[..., None].expand(v.shape)).cumsum(2)
        sums = pad(sums, (0, 0, 1, 0))
        stop = torch.searchsorted(places, node_q * n + at, right=True)
        start = torch.searchsorted(places, node_q * n)
        number = (stop - start)[..., None]
        inside = (sums.gather(2, x[..., None].expand(v.shape)) for x in (stop, start))
        mean = (next(inside) - next(inside)) / number.clamp_min(1)
        found.append(mean if level == 0 else torch.where(number > 0, mean, found[-1]))
    return found
