"""Assignments sorted by expert in three small GPU kernels: a counting sort, stable as the general one. Imports Triton.

What is computed is written out in dropless.py, which calls this on CUDA only. Blocks of assignments are counted, the counts become
offsets, and every assignment goes to its expert's offset plus its rank within the block.
"""

import torch
import triton
import triton.language as tl

BLOCK = 256  # assignments of a program
TOGETHER = 32  # blocks whose counts are read at once
MOST = 256  # experts; beyond, a block's table of ranks would not fit the registers


@triton.jit(do_not_specialize=["n"])
def tally(EXPERT, COUNTS, n, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """COUNTS int32 [blocks, WIDE]: assignments of a block to each expert. EXPERT int16 [n]."""
    block = tl.program_id(0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(EXPERT + place, mask=place < n, other=-1).to(tl.int32)
    experts = tl.arange(0, WIDE)
    tl.store(COUNTS + block * WIDE + experts, tl.sum((expert[:, None] == experts[None, :]).to(tl.int32), 0))


@triton.jit(do_not_specialize=["blocks", "count"])
def offsets(COUNTS, ENDS, blocks, count, WIDE: tl.constexpr, TOGETHER: tl.constexpr):
    """COUNTS becomes the first place of each block and expert; ENDS int32 [count]: where the rows of each expert end."""
    experts = tl.arange(0, WIDE)
    total = tl.zeros([WIDE], tl.int32)
    for first in range(0, blocks, TOGETHER):
        block = first + tl.arange(0, TOGETHER)
        at = block[:, None] * WIDE + experts[None, :]
        total += tl.sum(tl.load(COUNTS + at, mask=(block < blocks)[:, None], other=0), 0)
    ends = tl.cumsum(total, 0)
    tl.store(ENDS + experts, ends, mask=experts < count)
    start = ends - total
    for first in range(0, blocks, TOGETHER):
        block = first + tl.arange(0, TOGETHER)
        at = block[:, None] * WIDE + experts[None, :]
        counts = tl.load(COUNTS + at, mask=(block < blocks)[:, None], other=0)
        tl.store(COUNTS + at, start[None, :] + tl.cumsum(counts, 0) - counts, mask=(block < blocks)[:, None])
        start += tl.sum(counts, 0)


@triton.jit(do_not_specialize=["n"])
def scatter(EXPERT, COUNTS, TOKEN, PLACE, n, EACH: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """PLACE int64 [n]: the sorted row of every assignment; TOKEN int64 [n]: the token of every sorted row."""
    block = tl.program_id(0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    expert = tl.load(EXPERT + place, mask=place < n, other=-1).to(tl.int32)
    experts = tl.arange(0, WIDE)
    mine = expert[:, None] == experts[None, :]
    ranks = tl.cumsum(mine.to(tl.int32), 0) - 1 + tl.load(COUNTS + block * WIDE + experts)[None, :]
    row = tl.sum(tl.where(mine, ranks, 0), 1).to(tl.int64)
    tl.store(PLACE + place, row, mask=place < n)
    tl.store(TOKEN + row, (place // EACH).to(tl.int64), mask=place < n)


def by_expert(expert, count: int):
    """As dropless.by_expert: expert int16 [n, k] -> ends int32 [count], token int64 [n k], place int64 [n k]."""
    each, n = expert.shape[1], expert.numel()
    blocks, wide = triton.cdiv(n, BLOCK), max(16, triton.next_power_of_2(count))
    new = {"device": expert.device, "dtype": torch.int32}
    counts, ends = torch.empty(blocks, wide, **new), torch.empty(count, **new)
    token, place = torch.empty(2, n, device=expert.device, dtype=torch.int64)
    expert, warps = expert.contiguous(), max(4, min(16, wide // 8))
    if n:
        tally[(blocks,)](expert, counts, n, WIDE=wide, BLOCK=BLOCK, num_warps=warps)
    offsets[(1,)](counts, ends, blocks, count, WIDE=wide, TOGETHER=TOGETHER, num_warps=8)
    if n:
        scatter[(blocks,)](expert, counts, token, place, n, EACH=each, WIDE=wide, BLOCK=BLOCK, num_warps=warps)
    return ends, token, place
