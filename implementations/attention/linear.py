"""Linear attention from the exponents of positive features, in PyTorch: bidirectional, and causal by prefix sums over chunks.

Both take h of queries and keys [batch, heads, n, M] as `features.exponents` gives them, float32 or float64, and v [batch, heads,
n, d_v]; they return the dtype of h. Everything is differentiable; maxima are constants to the gradient, since they cancel.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

# Added to every visible product inside a chunk. A row all of whose keys lie e^-69 below a later key of its chunk would divide by
# zero without it; it then gets the mean of the values that it sees in the chunk. Elsewhere it is below float32's rounding.
FLOOR = 1e-30


def bidirectional(hq: torch.Tensor, hk: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Two softmaxes, see `features`. FLOPs: 4 n M d_v a head."""
    v = v.to(hk.dtype)
    top = hk.detach().amax(-2, keepdim=True)
    weights = torch.exp(hk - top)
    sums = weights.sum(-2, keepdim=True)
    means = (weights.mT @ v) / sums.mT
    return torch.softmax(hq + (top + torch.log(sums)), -1) @ means


def causal(hq: torch.Tensor, hk: torch.Tensor, v: torch.Tensor, chunk: int) -> torch.Tensor:
    """Row t sees keys 0..t. FLOPs a head: 4 N M (d_v + 1) for the state and 2 N c (M + d_v + 1) inside the chunks, where N is n
    rounded up to chunks of c.

    Weights are relative to the running maximum of each feature, taken at the end of each chunk. The Python loop is over
    chunks and only carries the state: all products are batched over the chunks.
    """
    n, d = v.shape[-2:]
    chunk = min(chunk, n)
    over = -n % chunk
    hq, hk = pad(hq, (0, 0, 0, over)), pad(hk, (0, 0, 0, over), value=float("-inf"))
    ones = torch.ones_like(v[..., :1])
    v = pad(torch.cat((v, ones), -1).to(hk.dtype), (0, 0, 0, over))
    hq, hk, v = (x.unflatten(-2, (-1, chunk)) for x in (hq, hk, v))
    top = hk.detach().amax(-2, keepdim=True).cummax(-3).values  # [batch, heads, chunks, 1, M]: after each chunk
    keys = torch.exp(hk - top)
    queries = hq + top
    queries = torch.exp(queries - queries.detach().amax(-1, keepdim=True))
    before = states(keys.mT @ v, torch.exp(top[..., :-1, :, :] - top[..., 1:, :, :]).mT)
    inside = queries @ keys.mT + FLOOR
    total = queries @ before + inside.tril() @ v
    return (total[..., :d] / total[..., d:]).flatten(-3, -2)[..., :n, :]


def states(sums: torch.Tensor, shrink: torch.Tensor) -> torch.Tensor:
    """What each chunk finds: the sums [..., chunks, M, d] of the chunks before it, on the scale of its own maximum."""
    state = torch.zeros_like(sums[..., 0, :, :])
    found = [state]
    for index in range(sums.shape[-3] - 1):
        state = (state + sums[..., index, :, :]) * shrink[..., index, :, :]
        found.append(state)
    return torch.stack(found, -3)
