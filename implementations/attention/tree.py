"""A decision tree of hyperplanes for every head: fitted by median splits, walked by queries and keys alike. PyTorch.

Nodes are numbered as in a heap: node i has the children 2 i + 1 (z <= 0) and 2 i + 2 (z > 0), z = w_i·x - b_i. All 2^h - 1 predicates
are computed by one product, since a gather of h weight vectors per token is slower for the small h in use; the walk looks up h.
"""

from __future__ import annotations

import numpy as np
import torch


def fit(q: np.ndarray, k: np.ndarray, height: int, rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights [heads, 2^h - 1, d] and offsets [heads, 2^h - 1] from calibration q and k [batch, heads, n, d]. No labels, no gradient.

    "principal": at each node the direction in which its queries and keys spread most, so that close pairs stay together;
    "random": a random direction. Both cut at the median of the node's keys, which balances the leaves.
    """
    heads, d = q.shape[1], q.shape[3]
    nodes = 2**height - 1
    weights, offsets = np.zeros((heads, nodes, d)), np.zeros((heads, nodes))
    for head in range(heads):
        # A query meets keys by direction, not by length: lengths would fill the first cut.
        sides = [x[:, head].reshape(-1, d).astype(np.float64) for x in (q, k)]
        where = [np.zeros(len(x), dtype=int) for x in sides]
        for node in range(nodes):
            mine = [x[at == node] for x, at in zip(sides, where)]
            weights[head, node] = w = direction(np.concatenate([unit(x) for x in mine]), rng, kind, d)
            offsets[head, node] = b = np.median(mine[1] @ w) if len(mine[1]) else 0.0
            for x, at in zip(sides, where):
                here = at == node
                at[here] = 2 * node + 1 + (x[here] @ w > b)
    return weights, offsets


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def direction(points: np.ndarray, rng: np.random.Generator, kind: str, d: int) -> np.ndarray:
    if kind == "principal" and len(points) > 1:
        return np.linalg.svd(points - points.mean(0), full_matrices=False)[2][0]
    w = rng.standard_normal(d)
    return w / np.linalg.norm(w)


def leaves(x: torch.Tensor, weights: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Leaf 0 .. 2^h - 1 of every token of x [batch, heads, n, d]: int64 [batch, heads, n]."""
    nodes = weights.shape[-2]
    height = (nodes + 1).bit_length() - 1
    found = x.new_zeros(x.shape[:-1], dtype=torch.int64)
    if height:
        right = x @ weights.to(x.dtype).mT > offsets.to(x.dtype)[..., None, :]
        for _ in range(height):
            found = 2 * found + 1 + right.gather(-1, found[..., None])[..., 0].long()
    return found - nodes


def predicates(height: int) -> int:
    return 2**height - 1
