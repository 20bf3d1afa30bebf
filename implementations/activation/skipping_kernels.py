"""Triton kernels of a ReLU layer for few tokens that read only the used rows of W2. Triton is imported on the first use.

`up` multiplies by W1 (each row read once for all tokens) and appends used neurons to lists, `down` adds their rows: two launches,
nothing goes back to the host, so a CUDA graph can hold them. With Top-k, `up` writes all activations and `select` makes the lists.
More than MOST tokens go through the library's product and `select`. Sums are float32; rows and inputs any of three dtypes.
"""

from __future__ import annotations

import functools

import torch

MOST = 8  # tokens that `up` takes at once
PROGRAMS = 528  # of `down`: four on each multiprocessor of an H100
WIDEST = 1 << 17  # neurons that one program of `select` holds
# (rows of a tile for one token, columns of a tile, warps) of `up`; (columns for D <= 1024, for wider, rows, warps) of `down`.
TILES = {"up": (4, 1024, 4), "down": (128, 512, 8, 4)}


def unfit(width: int, device: str, dtype: str) -> str:
    """Why the kernels cannot run, or ""."""
    if device != "cuda":
        return f"the Triton kernels need a CUDA device, not '{device}'"
    if dtype not in ("float32", "float16", "bfloat16"):
        return f"the Triton kernels are for float32, float16 and bfloat16, not {dtype}"
    if width > WIDEST:
        return f"the Triton kernels hold {WIDEST} neurons at most, not {width}"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    return ""


class Scratch:
    """Counters of one layer, zero between calls. One call at a time: two streams would count into each other."""

    def __init__(self, device):
        self.device, self.tokens, self.blocks = device, 0, 0

    def room(self, tokens: int, blocks: int):
        if tokens > self.tokens or blocks > self.blocks:
            self.tokens, self.blocks = max(tokens, self.tokens), max(blocks, self.blocks)
            made = (self.tokens, self.tokens * self.blocks, self.tokens)
            self.counters = [torch.zeros(size, dtype=torch.int32, device=self.device) for size in made]
        return self.counters


def mlp(x, up, up_bias, rows, bias, k: int, scratch: Scratch, tiles=None, at=None):
    """x [n, d], up and rows [f, d], biases [f] and [d] -> [n, d]. k >= f: every neuron above zero."""
    at, tiles = at or kernels(), tiles or TILES
    (n, d), f = x.shape, len(up)
    x, top = x.contiguous(), k < f
    index = torch.empty((n, f), dtype=torch.int32, device=x.device)
    value = torch.empty((n, f), dtype=torch.float32, device=x.device)
    cols = tiles["down"][0 if d <= 1024 else 1]
    blocks = -(-d // cols)
    count, ticket, last = scratch.room(n, blocks)
    if n <= MOST:
        tokens = power(n)
        size, block, warps = tiles["up"]
        size, block = max(1, size // tokens), min(block, power(d))
        h = x.new_empty((n, f)) if top else x
        at.up[(-(-f // size),)](
            x, up, up_bias, h, index, value, count, n, D=d, F=f, TOKENS=tokens, ROWS=size, BLOCK=block, COMPACT=not top,
            num_warps=warps,
        )  # fmt: skip
    else:
        h = torch.nn.functional.linear(x, up, up_bias)
    if top or n > MOST:
        wide = power(f)
        at.select[(n,)](
            h,
            index,
            value,
            count,
            k,
            F=f,
            WIDE=wide,
            BITS=31 if h.element_size() == 4 else 15,
            num_warps=max(1, min(32, wide // 256)),
        )
    parts = max(1, min(32, power(PROGRAMS // (blocks * n) + 1) // 2))
    partial = torch.empty((n, parts, d), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    at.down[(blocks, parts, n)](
        index, value, count, rows, bias, partial, ticket, last, out, D=d, F=f, COLS=cols, ROWS=tiles["down"][2], PARTS=parts,
        num_warps=tiles["down"][3],
    )  # fmt: skip
    return out


def power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


@functools.cache
def kernels():
    from . import skipping_triton

    return skipping_triton
