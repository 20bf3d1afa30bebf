"""Triton kernels of a ReLU layer for few tokens that read only the used rows of W2. Triton is imported on the first use.

`up` multiplies by W1, each row read once for all tokens, and appends the neurons that any token uses to a list; `down` adds their rows,
each read once. With Top-k, `up` writes all activations, `select` finds what a token's k-th largest is and `compact` makes the list. Nothing
goes back to the host, so a CUDA graph can hold them. Sums are float32; rows and inputs any of three dtypes.

More than MOST tokens use nearly every neuron together, so that nothing is left to skip: the caller multiplies densely.
"""

from __future__ import annotations

import functools

import torch

MOST = 16  # tokens at once: what one instruction of the matrix units takes
WIDEST = 1 << 17  # neurons that one program of `select` holds
# By the number of tokens, one or several: (rows, columns, stages, warps) of a tile of `up` and of `down`, and about how many programs
# `down` has. Measured on an H200 with 16,384 neurons of 4,096 numbers: tests/kernels/sparse_mlp.py --tiles.
TILES = {
    1: {"up": (1, 4096, 1, 4), "down": (256, 32, 3, 8), "programs": 128},
    MOST: {"up": (64, 128, 4, 4), "down": (128, 64, 3, 4), "programs": 512},
}


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
        self.device, self.blocks, self.bins = device, 0, 0

    def room(self, tokens: int, blocks: int):
        """The list's count, a ticket for each block of columns, how many blocks are done, and 2,048 bins for each token."""
        if blocks > self.blocks or tokens > self.bins:
            self.blocks, self.bins = max(blocks, self.blocks), max(tokens, self.bins)
            made = (1, self.blocks, 1, 2048 * self.bins)
            self.counters = [torch.zeros(size, dtype=torch.int32, device=self.device) for size in made]
        return self.counters


def mlp(x, up, up_bias, rows, bias, k: int, scratch: Scratch, tiles=None, at=None):
    """x [n, d], n from 1 to MOST, up and rows [f, d], biases [f] and [d] -> [n, d]. k >= f: every neuron above zero."""
    at, (n, d), f = at or kernels(), x.shape, len(up)
    x, top, tokens = x.contiguous(), k < f, 1 if n == 1 else MOST
    tiles = tiles or TILES[tokens]
    size, block, stages, warps = tile(tiles["up"], tokens, d, x)
    part, cols, down_stages, down_warps = tiles["down"]
    cols, down_stages = min(cols, max(16, power(d))), fitting(down_stages, x)
    blocks = -(-d // cols)
    parts = max(1, min(32, power(tiles["programs"] // blocks + 1) // 2))
    bits = 31 if x.element_size() == 4 else 15
    count, ticket, last, bins = scratch.room(n, blocks)
    index = torch.empty(f, dtype=torch.int32, device=x.device)
    value = torch.empty((f, tokens), dtype=torch.float32 if n == 1 else x.dtype, device=x.device)
    h = x.new_empty((n, f)) if top else x
    at.up[(-(-f // size),)](
        x, up, up_bias, h, index, value, count, bins, n, D=d, F=f, TOKENS=tokens, ROWS=size, BLOCK=block, STAGES=stages,
        COMPACT=not top, BITS=bits, num_warps=warps,
    )  # fmt: skip
    if top:
        least, cut = torch.empty((2, n), dtype=torch.int32, device=x.device)
        wide, each = power(f), 1024 // tokens
        at.select[(n,)](h, bins, least, cut, k, F=f, WIDE=wide, BITS=bits, num_warps=max(1, min(32, wide // 1024)))
        at.compact[(-(-f // each),)](h, least, cut, index, value, count, n, F=f, TOKENS=tokens, ROWS=each, BITS=bits, num_warps=4)
    partial = torch.empty((parts, n, d), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    at.down[(blocks, parts)](
        index, value, count, rows, bias, partial, ticket, last, out, n, D=d, F=f, TOKENS=tokens, ROWS=part, COLS=cols,
        STAGES=down_stages, PARTS=parts, num_warps=down_warps,
    )  # fmt: skip
    return out


def product(x, w, bias, *, relu: bool = False, at=None):
    """x [1, d], w [f, d], bias [f] -> x w^T + bias [1, f], or relu of it. For one token it is faster than the library's product."""
    at, (n, d), f = at or kernels(), x.shape, len(w)
    size, block, stages, warps = tile(TILES[1]["up"], 1, d, x)
    out = x.new_empty((n, f))
    at.dense[(-(-f // size),)](
        x.contiguous(), w, bias, out, n, D=d, F=f, TOKENS=1, ROWS=size, BLOCK=block, STAGES=stages, RELU=relu, num_warps=warps
    )
    return out


def tile(chosen, tokens: int, d: int, x):
    """A tile of a product for rows of d numbers: narrower rows are as many more where one token is multiplied."""
    size, block, stages, warps = chosen
    narrow = min(block, max(16, power(d)))
    return (size * block // narrow if tokens == 1 else size), narrow, fitting(stages, x), warps


def fitting(stages: int, x) -> int:
    """Numbers of four bytes take twice the shared memory."""
    return min(stages, 2) if x.element_size() == 4 else stages


def power(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


@functools.cache
def kernels():
    from . import skipping_triton

    return skipping_triton
