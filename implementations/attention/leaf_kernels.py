"""Triton kernels of attention inside the leaves of a tree, for half precision on a GPU. Triton is imported on the first use.

`route` walks the tree, one sort of all keys puts the tokens of a leaf together, and `attend` is a flash attention whose block of sorted
queries reads the stretch of sorted keys between the first and the last of its leaves: no pair of blocks is listed, so nothing goes back
to the host and a CUDA graph can hold it. `sums` and `answer` are the two passes of a mix of mean values: a sum of the values of each leaf,
and each query's row of the table made of them. Forward only; gradients are PyTorch's (buckets.py).
"""

from __future__ import annotations

import functools
import math

import torch

LOG2E = math.log2(math.e)
PROGRAMS = 528  # of `sums`: four on each multiprocessor of an H100
ROWS, COLS = 128, 128  # queries and keys in a tile of `attend`: the fastest of four on an H200
HIGHEST = 6  # predicates of a program: 2^h - 1


def unfit(height: int, head_dim: int, device: str, dtype: str) -> str:
    """Why the kernels cannot run, or ""."""
    if device != "cuda":
        return f"the Triton kernels need a CUDA device, not '{device}'"
    if dtype not in ("float16", "bfloat16"):
        return f"the Triton kernels are for float16 and bfloat16, not {dtype}"
    if head_dim not in (16, 32, 64, 128):
        return f"the Triton kernels take heads of 16, 32, 64 or 128, not {head_dim}"
    if height > HIGHEST:
        return f"the Triton kernels walk trees of height {HIGHEST} at most, not {height}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    return ""


def padded(weights: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicates [heads, 2^h - 1, d] and [heads, 2^h - 1] with rows that send to the left, up to a power of two of at least 16."""
    heads, nodes, d = weights.shape
    wide = max(16, nodes + 1)
    w, b = weights.new_zeros(heads, wide, d), offsets.new_full((heads, wide), float("inf"))
    w[:, :nodes], b[:, :nodes] = weights, offsets
    return w, b


def attention(q, k, v, w, b, height: int, causal: bool, at=None, tiles=(ROWS, COLS)):
    """Softmax over the visible keys of the query's leaf; where there are none, the token's own value. [batch, heads, n, d]."""
    at, (rows, columns) = at or kernels(), tiles
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    batch, heads, n, d = q.shape
    groups, out = batch * heads, torch.empty_like(q)
    key, index, start, high = stretches(q, k, w, b, height, causal, at, rows)
    at.attend[(-(-n // rows), groups)](
        q, k, v, out, key, index, start, high, n, groups, d**-0.5 * LOG2E, HEIGHT=height, D=d, ROWS=rows, COLS=columns, CAUSAL=causal,
        num_warps=4 if d <= 64 else 8, num_stages=2,
    )  # fmt: skip
    return out


def stretches(q, k, w, b, height: int, causal: bool, at, rows: int):
    """(sorted keys, where they stood, where each value of a key begins, causal ends [group, block]), see `attend`."""
    (batch, heads, n, d), p, count = q.shape, w.shape[1], 1 << height
    groups, tokens = batch * heads, 128
    key = torch.empty(2 * groups * n, dtype=torch.int32, device=q.device)
    for side, x in enumerate((q, k)):
        at.route[(-(-n // tokens), groups)](
            x, w, b, key, n, heads, side * groups, HEIGHT=height, P=p, D=d, TOKENS=tokens, num_warps=4
        )
    key, index = key.sort(stable=True)  # inside a leaf tokens stay in order
    start = torch.searchsorted(key, torch.arange(2 * groups * count + 1, dtype=torch.int32, device=q.device))
    high = start
    if causal:
        # A query may see the keys of its leaf up to its own time: the last query of a block says where the block's stretch ends.
        last = torch.arange(rows - 1, n + rows - 1, rows, device=q.device).clamp_max(n - 1)
        mine = (torch.arange(groups, device=q.device)[:, None] * n + last).flatten()
        time = index - index // n * n
        leaf_time = key.long() * n + time
        high = torch.searchsorted(leaf_time, leaf_time[mine] + groups * count * n, right=True)
    return key, index, start, high


def scores(q, k, w, b, height: int, causal: bool, at=None, tiles=(ROWS, COLS)) -> float:
    """Entries of the score matrix that `attend` multiplies out: whole tiles. Waits for the device."""
    at, (rows, columns) = at or kernels(), tiles
    groups, n = q.shape[0] * q.shape[1], q.shape[2]
    key, _, start, high = stretches(q.contiguous(), k.contiguous(), w, b, height, causal, at, rows)
    first = torch.arange(0, n, rows, device=q.device)
    last = (first + rows - 1).clamp_max(n - 1)
    mine, shift = key[: groups * n].view(groups, n), groups << height
    low = start[mine[:, first] + shift]
    end = high.view(groups, -1) if causal else start[mine[:, last] + shift + 1]
    return float((-(-(end - low).clamp_min(0) // columns)).sum()) * rows * columns


def leaf_sums(k, v, w, b, height: int, at=None):
    """(float32 [batch, heads, 2^h, d], [batch, heads, 2^h, 1]): sum and number of the values in each leaf."""
    at, k, v = at or kernels(), k.contiguous(), v.contiguous()
    (batch, heads, n, d), p, tokens = k.shape, w.shape[1], 64
    groups = batch * heads
    parts = max(1, min(-(-PROGRAMS // groups), -(-n // tokens)))
    span = -(-n // (parts * tokens)) * tokens
    parts = -(-n // span)
    total = torch.empty((groups, parts, p, d), dtype=torch.float32, device=k.device)
    number = torch.empty((groups, parts, p), dtype=torch.float32, device=k.device)
    at.sums[(groups, parts)](k, v, w, b, total, number, n, span, heads, HEIGHT=height, P=p, D=d, TOKENS=tokens, num_warps=4)
    total, number = (x.sum(1)[:, : 1 << height].unflatten(0, (batch, heads)) for x in (total, number))
    return total, number[..., None]


def rows_of(q, table, w, b, height: int, at=None):
    """table [batch, heads, 2^h, d] at the leaf of each query of q [batch, heads, n, d]."""
    at, q, table = at or kernels(), q.contiguous(), table.contiguous()
    (batch, heads, n, d), p, tokens = q.shape, w.shape[1], 128
    out = torch.empty((batch, heads, n, d), dtype=table.dtype, device=q.device)
    at.answer[(-(-n // tokens), batch * heads)](q, w, b, table, out, n, heads, HEIGHT=height, P=p, D=d, TOKENS=tokens, num_warps=4)
    return out


@functools.cache
def kernels():
    from . import leaf_triton

    return leaf_triton
