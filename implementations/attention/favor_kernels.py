"""Triton kernels of attention by positive features, for half precision on a GPU. Triton is imported on the first use.

Two softmaxes (see `features`), each a flash attention whose other side is the M features: `_keys` lets the features look at the
keys (one program per head, span of keys and block of features, running maximum in float32), `_merge` joins the spans, `_queries`
lets the queries look at the features. q, k and v are read once, the output written once, no feature reaches memory.

Causal: `_keys` over segments, `_prefix` turns their sums into what each segment finds (a bfloat16 state and the reference of its
exponents), `_causal` walks a segment in chunks with the state in registers. Segments are many and short: the last wave of programs
is then a small part of all, and the chain of chunks that wait for one another is short. Its products are bfloat16 whatever the
inputs are: float16 has no range for unnormalised sums.
Exponents are base 2, so log2(e) is part of every scale. float32 inputs stay with PyTorch: TF32 is another precision.
"""

from __future__ import annotations

import functools
import math

from .task import free_host_memory

LOG2E = math.log2(math.e)
PROGRAMS = 264  # that fill an H100 twice: 132 multiprocessors
# (tokens in a tile, warps, stages) of each kernel, for heads of 64 and 128 features.
TILES = {"keys": (128, 8, 3), "segments": (128, 8, 3), "queries": (128, 8, 2), "causal": (64, 4, 2)}
SEGMENT = 2048  # tokens at most; its state is M D numbers in and out of memory, against 4 D for each token


def unfit(features: int, head_dim: int, device: str, dtype: str) -> str:
    """Why the kernels cannot run, or ""."""
    if device != "cuda":
        return f"the Triton kernels need a CUDA device, not '{device}'"
    if dtype not in ("float16", "bfloat16"):
        return f"the Triton kernels are for float16 and bfloat16, not {dtype}"
    if features not in (16, 32, 64, 128, 256) or head_dim not in (16, 32, 64, 128):
        return f"the Triton kernels take 16 to 256 features and heads of 16 to 128, powers of two, not {features} and {head_dim}"
    if features * head_dim > 1 << 14:
        return f"the state of {features} features for heads of {head_dim} does not fit the chip's shared memory"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed"
    return ""


def room(device: str) -> float:
    """Bytes that are free on the device."""
    if device != "cuda":
        return free_host_memory()
    import torch

    return float(torch.cuda.mem_get_info()[0])


def attention(q, k, v, w, a, causal: bool):
    """q, k, v [batch, heads, n, d]; w [heads, M, d] of the same dtype; a float32 [batch * heads]. Same shape back."""
    import torch

    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out = torch.empty_like(q)
    empty = functools.partial(torch.empty, device=q.device)
    launch(kernels(), q, k, v, w, a, out, causal, TILES, lambda shape: empty(shape, dtype=torch.float32), half(empty))
    return out


def half(empty):
    """Scratch space of bfloat16: states have the range of float32 whatever the inputs have."""
    import torch

    return functools.partial(empty, dtype=torch.bfloat16)


def launch(at, q, k, v, w, a, out, causal: bool, tiles: dict, empty, empty_half) -> None:
    """Launch the kernels `at` on contiguous arrays; `empty(shape)` makes float32 scratch space, `empty_half(shape)` bfloat16."""
    batch, heads, n, d = q.shape
    total, m = batch * heads, w.shape[1]
    slope = d**-0.25 * LOG2E
    tokens, warps, stages = tiles["segments" if causal else "keys"]
    step = tiles["causal"][0] if causal else tokens
    parts = max(1, min(-(-PROGRAMS // total), -(-n // step)))
    if causal:
        parts = max(parts, -(-n // SEGMENT))
    span = -(-n // (parts * step)) * step
    parts = -(-n // span)
    block = min(m, 128)
    top, sums, acc = empty((total, parts, m)), empty((total, parts, m)), empty((total, parts, m, d))
    norms = empty((total, n)) if causal else top
    at.keys[(total, parts, m // block)](
        k, v, w, a, top, sums, acc, norms, n, span, heads, slope, 0.5 * d**-0.5 * LOG2E, M=m, D=d, ROWS=block, TOKENS=tokens,
        NORMS=causal, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    small = min(m, 16)
    if causal:
        reference, bias, before = (empty((total, parts, m)) for _ in range(3))
        state = empty_half((total, parts, m, d))
        few = min(m, 4)  # rows in a program: the walk over the parts is latency, hidden by many programs
        at.prefix[(total, m // few)](
            top, sums, acc, w, a, reference, bias, before, state, parts, heads, 2 * LOG2E, M=m, D=d, ROWS=few, num_warps=1
        )
        tokens, warps, stages = tiles["causal"]
        warps = 8 if m * d > 1 << 13 or m > 128 else warps  # state and exponents have to stay in registers
        at.causal[(total, parts)](
            q, k, v, w, a, norms, reference, bias, before, state, out, n, span, heads, slope, M=m, D=d, TOKENS=tokens,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return
    bias, means = empty((total, m)), out.new_empty((total, m, d))
    at.merge[(total, m // small)](top, sums, acc, w, a, bias, means, parts, heads, 2 * LOG2E, M=m, D=d, ROWS=small, num_warps=4)
    tokens, warps, stages = tiles["queries"]
    tokens = min(tokens, 128 * 128 // m)
    each = max(1, min(8, n * total // (tokens * PROGRAMS)))
    at.queries[(-(-n // (tokens * each)), total)](
        q, w, a, bias, means, out, n, each, heads, slope, M=m, D=d, TOKENS=tokens, num_warps=warps, num_stages=stages
    )


def optimal(q, k):
    """A* of each head, float32 [batch * heads], in two launches."""
    import torch

    batch, heads, n, d = q.shape
    total, tokens = batch * heads, 128
    parts = max(1, min(-(-PROGRAMS // total), -(-n // tokens)))
    span = -(-n // (parts * tokens)) * tokens
    parts = -(-n // span)
    moments = torch.empty((2, total, parts, 2, d), dtype=torch.float32, device=q.device)
    found = torch.empty(total, dtype=torch.float32, device=q.device)
    at = kernels()
    for side, x in enumerate((q.contiguous(), k.contiguous())):
        at.moments[(total, parts)](x, moments[side], n, span, D=d, TOKENS=tokens, num_warps=4)
    at.optimum[(total,)](moments[0], moments[1], found, parts, 1.0 / n, d**-0.5, D=d, num_warps=1)
    return found


@functools.cache
def kernels():
    from . import favor_triton

    return favor_triton
