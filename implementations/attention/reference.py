"""What exact attention is, in float64 and in bounded memory, and what a float of lower precision can hold. numpy only."""

from __future__ import annotations

import numpy as np

ENTRIES = 1 << 22  # score entries held at a time: 32 MiB in float64


def exact_rows(q: np.ndarray, k: np.ndarray, v: np.ndarray, rows: np.ndarray, causal: bool) -> tuple[np.ndarray, float]:
    """softmax(q kᵀ / sqrt(d)) v of one head, for the query rows asked for, and the largest |logit| seen.

    q, k, v are [length, d] of any float type; returns float64 [len(rows), d]. Row t of a causal head sees keys 0..t.
    """
    keys, values = k.astype(np.float64), v.astype(np.float64)
    queries = q[rows].astype(np.float64) / np.sqrt(q.shape[-1])
    out = np.empty((len(rows), v.shape[-1]))
    block = max(1, ENTRIES // len(keys))
    positions = np.arange(len(keys))
    largest = 0.0
    for start in range(0, len(rows), block):
        stop = start + block
        logits = queries[start:stop] @ keys.T
        largest = max(largest, float(np.abs(logits).max()))
        if causal:
            logits[positions[None, :] > rows[start:stop, None]] = -np.inf
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        out[start:stop] = (logits @ values) / logits.sum(axis=1, keepdims=True)
    return out, largest


def representable(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 array rounded to what `dtype` can hold, so that a later cast to it is exact (ties to even)."""
    if dtype == "float32":
        return x
    if dtype == "float16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    raise ValueError(f"attention runs in float32, float16 or bfloat16, not in '{dtype}'")


def exact_gradients(q, k, v, g, rows: np.ndarray, causal: bool) -> tuple[np.ndarray, ...]:
    """(out[rows], dq[rows], dk, dv) of one head for the gradient g of its output, as if g were zero outside `rows`. float64.

    With P = softmax(q k^T / sqrt(d)) and o = P v: dv = P^T g, dS = P o (g v^T - g·o), dq = dS k / sqrt(d), dk = dS^T q / sqrt(d).
    """
    q, k, v, g = (x.astype(np.float64) for x in (q, k, v, g))
    slope = q.shape[-1] ** -0.5
    out, dq, dk, dv = np.empty((len(rows), q.shape[1])), np.empty((len(rows), q.shape[1])), np.zeros_like(k), np.zeros_like(v)
    block, positions = max(1, ENTRIES // len(k)), np.arange(len(k))
    for start in range(0, len(rows), block):
        here = rows[start : start + block]
        weights = q[here] @ k.T * slope
        if causal:
            weights[positions > here[:, None]] = -np.inf
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        o = weights @ v
        inner = weights * (g[here] @ v.T - (g[here] * o).sum(-1, keepdims=True)) * slope
        out[start : start + block], dq[start : start + block] = o, inner @ k
        dk += inner.T @ q[here]
        dv += weights.T @ g[here]
    return out, dq, dk, dv
