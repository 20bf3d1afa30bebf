"""Two small GPU kernels around the experts' products: the gate's two best, and the weighted sum of a token's rows. Imports Triton.

What they compute is written out in dropless.py, which calls them on CUDA only.
"""

import torch
import triton
import triton.language as tl

TOKENS = 16


# Row counts change from call to call: no variant of a kernel for n = 1 or n divisible by 16.
@triton.jit(do_not_specialize=["n"])
def two_best(LOGITS, EXPERT, WEIGHT, n, COUNT: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr):
    """LOGITS float32 [n, COUNT] -> EXPERT int16 [n, 2], best first, WEIGHT float32 [n, 2]: their softmax over the two."""
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    expert = tl.arange(0, WIDE)
    inside = (token < n)[:, None] & (expert < COUNT)[None, :]
    at = token.to(tl.int64)
    logits = tl.load(LOGITS + at[:, None] * COUNT + expert[None, :], mask=inside, other=float("-inf"))
    first = tl.argmax(logits, 1)
    top = tl.max(logits, 1)
    logits = tl.where(expert[None, :] == first[:, None], float("-inf"), logits)
    second = tl.argmax(logits, 1)
    # The pair of chances divided by their sum: everything that the softmax over all experts adds cancels.
    share = tl.exp(tl.max(logits, 1) - top)
    tl.store(EXPERT + 2 * at, first.to(tl.int16), mask=token < n)
    tl.store(EXPERT + 2 * at + 1, second.to(tl.int16), mask=token < n)
    tl.store(WEIGHT + 2 * at, 1.0 / (1.0 + share), mask=token < n)
    tl.store(WEIGHT + 2 * at + 1, share / (1.0 + share), mask=token < n)


@triton.jit(do_not_specialize=["n"])
def weighted_rows(Y, ROW, WEIGHT, START, OUT, n, D: tl.constexpr, EACH: tl.constexpr, BLOCK: tl.constexpr):
    """OUT[t] = sum over i of WEIGHT[i] Y[ROW[i]], float32 inside; i from EACH t, or from START[t] where EACH is 0."""
    token = tl.program_id(0).to(tl.int64)
    dims = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    if EACH > 0:
        for j in tl.static_range(EACH):
            row = tl.load(ROW + token * EACH + j)
            weight = tl.load(WEIGHT + token * EACH + j)
            total += weight * tl.load(Y + row * D + dims, mask=dims < D, other=0.0).to(tl.float32)
    else:
        i = tl.load(START + token)
        stop = tl.load(START + token + 1)
        while i < stop:
            row = tl.load(ROW + i)
            weight = tl.load(WEIGHT + i)
            total += weight * tl.load(Y + row * D + dims, mask=dims < D, other=0.0).to(tl.float32)
            i += 1
    tl.store(OUT + token * D + dims, total.to(OUT.dtype.element_ty), mask=dims < D)


def choose(logits):
    """float32 [n, count] -> (expert int16 [n, 2], weight float32 [n, 2])."""
    n, count = logits.shape
    expert = torch.empty(n, 2, dtype=torch.int16, device=logits.device)
    weight = torch.empty(n, 2, dtype=torch.float32, device=logits.device)
    if n:
        wide = triton.next_power_of_2(count)
        two_best[(triton.cdiv(n, TOKENS),)](logits.contiguous(), expert, weight, n, COUNT=count, WIDE=wide, TOKENS=TOKENS)
    return expert, weight


def combine(y, row, weight, n: int, each: int = 0, start=None):
    """y [rows, d], row int64 and weight float32 in order of tokens; start int64 [n + 1] where the number a token varies."""
    d = y.shape[1]
    out = torch.empty(n, d, dtype=y.dtype, device=y.device)
    block = min(1024, triton.next_power_of_2(d))
    if n:
        weighted_rows[(n, triton.cdiv(d, block))](
            y, row, weight, row if start is None else start, out, n, D=d, EACH=each, BLOCK=block
        )
    return out
