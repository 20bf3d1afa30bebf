"""The device code of skipping_kernels.py, which says what each kernel is for. Imports Triton: only where a GPU is used.

Arrays are contiguous: X [n, D], W1 and W2 [F, D] with a row for each neuron, H [n, F]. A list names the neurons that any token uses, in
the order of arrival: INDEX [F], VALUE [F, TOKENS] with a zero for a token that does not use the neuron, COUNT their number. TOKENS is 1,
or 16 for up to 16 tokens, as many as one instruction of the matrix units takes. PARTIAL [PARTS, n, D]. COUNT, TICKET [column blocks],
LAST and BINS [n, 2048] are zero before a call and zero again after it.
"""

import triton
import triton.language as tl

compiled = triton.jit(do_not_specialize=["n", "k"])


@triton.jit
def product(
    X, W, BIAS, rows, n, D: tl.constexpr, F: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """X W^T + b of ROWS rows of W for all tokens, float32 [TOKENS, ROWS]."""
    tokens = tl.arange(0, TOKENS)
    inside = rows < F
    at = rows.to(tl.int64) * D
    if TOKENS == 1:
        acc = tl.zeros([ROWS, BLOCK], tl.float32)
        for left in tl.range(0, D, BLOCK, num_stages=STAGES):
            dims = left + tl.arange(0, BLOCK)
            w = tl.load(W + at[:, None] + dims[None, :], mask=inside[:, None] & (dims < D)[None, :], other=0.0)
            x = tl.load(X + dims, mask=dims < D, other=0.0)
            acc += w.to(tl.float32) * x.to(tl.float32)[None, :]
        y = tl.sum(acc, 1)[None, :]
    else:
        y = tl.zeros([TOKENS, ROWS], tl.float32)
        for left in tl.range(0, D, BLOCK, num_stages=STAGES):
            dims = left + tl.arange(0, BLOCK)
            w = tl.load(W + at[None, :] + dims[:, None], mask=inside[None, :] & (dims < D)[:, None], other=0.0)
            x = tl.load(X + tokens[:, None] * D + dims[None, :], mask=(tokens < n)[:, None] & (dims < D)[None, :], other=0.0)
            y = tl.dot(x, w, y, input_precision="tf32x3")
    return y + tl.load(BIAS + rows, mask=inside, other=0.0).to(tl.float32)[None, :]


@compiled
def dense(
    X, W, BIAS, OUT, n, D: tl.constexpr, F: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    STAGES: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """X W^T + b, or relu of it, of ROWS rows of W [F, D]: what the dense layer needs of the same make."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    y = product(X, W, BIAS, rows, n, D, F, TOKENS, ROWS, BLOCK, STAGES)
    if RELU:
        y = tl.where(y <= 0.0, 0.0, y)
    tl.store(
        OUT + tokens[:, None] * F + rows[None, :], y.to(OUT.dtype.element_ty), mask=(tokens < n)[:, None] & (rows < F)[None, :]
    )


@compiled
def up(
    X, W, BIAS, H, INDEX, VALUE, COUNT, BINS, n, D: tl.constexpr, F: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, COMPACT: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """relu(X W1^T + b) of ROWS neurons for all tokens: to the list (COMPACT), or to H, counted in bins of their leading bits."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    asked = (tokens < n)[:, None] & (rows < F)[None, :]
    h = product(X, W, BIAS, rows, n, D, F, TOKENS, ROWS, BLOCK, STAGES)
    h = tl.where(asked & ((h <= 0.0) == 0), h, 0.0)  # a NaN stays
    if COMPACT:
        used = tl.max(((h == 0.0) == 0).to(tl.int32), 0)
        total = tl.sum(used, 0)
        start = tl.atomic_add(COUNT, total, mask=total > 0, sem="relaxed")
        place = start + tl.cumsum(used, 0) - 1
        tl.store(INDEX + place, rows, mask=used > 0)
        tl.store(VALUE + place[None, :] * TOKENS + tokens[:, None], h.to(VALUE.dtype.element_ty), mask=used[None, :] > 0)
    else:
        h = h.to(H.dtype.element_ty)
        tl.store(H + tokens[:, None] * F + rows[None, :], h, mask=asked)
        key = bits_of(h, BITS)
        ones = tl.full([TOKENS, ROWS], 1, tl.int32)
        tl.atomic_add(BINS + tokens[:, None] * 2048 + (key >> (BITS - 11)), ones, mask=asked & (key > 0), sem="relaxed")


@triton.jit
def bits_of(h, BITS: tl.constexpr):
    """Bits of numbers that are not negative sort as the numbers do; those of a NaN are the largest."""
    if BITS == 15:
        return h.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    else:
        return h.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@compiled
def select(H, BINS, LEAST, CUT, k, F: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr):
    """What the k largest of a token are: above LEAST, or equal to it and not behind neuron CUT. One program a token.

    The bins of `up` give the first 11 bits of the k-th largest. The rest is found two bits a pass, by counting three thresholds in one
    sum (21 bits each).
    """
    token = tl.program_id(0)
    bins = tl.arange(0, 2048)
    inside_bin = tl.load(BINS + token * 2048 + bins)
    tl.store(BINS + token * 2048 + bins, tl.zeros([2048], tl.int32))
    from_here = tl.sum(inside_bin, 0) - tl.cumsum(inside_bin, 0) + inside_bin
    least = tl.max(tl.where(from_here >= k, bins, 0), 0) << (BITS - 11)
    neurons = tl.arange(0, WIDE)
    key = bits_of(tl.load(H + token * F + neurons, mask=neurons < F, other=0.0), BITS)
    for step in tl.static_range((BITS - 11) // 2):
        shift = BITS - 13 - 2 * step  # a number known to the compiler, another one in each pass
        counts = (key >= least + (1 << shift)).to(tl.int64)
        counts += (key >= least + (2 << shift)).to(tl.int64) << 21
        counts += (key >= least + (3 << shift)).to(tl.int64) << 42
        found = tl.sum(counts, 0)
        passed = ((found & 0x1FFFFF) >= k).to(tl.int32) + (((found >> 21) & 0x1FFFFF) >= k).to(tl.int32)
        passed += ((found >> 42) >= k).to(tl.int32)
        least += passed << shift
    tie = (key == least).to(tl.int32)
    room = k - tl.sum((key > least).to(tl.int32), 0)
    tl.store(LEAST + token, least)
    tl.store(CUT + token, tl.max(tl.where((tie > 0) & (tl.cumsum(tie, 0) <= room), neurons, -1), 0))


@compiled
def compact(
    H, LEAST, CUT, INDEX, VALUE, COUNT, n, F: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BITS: tl.constexpr
):  # fmt: skip
    """The list of the neurons that `select` chose for any token."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    asked = (tokens < n)[:, None] & (rows < F)[None, :]
    h = tl.load(H + tokens[:, None] * F + rows[None, :], mask=asked, other=0.0)
    key = bits_of(h, BITS)
    least = tl.load(LEAST + tokens, mask=tokens < n, other=0)[:, None]
    cut = tl.load(CUT + tokens, mask=tokens < n, other=0)[:, None]
    keep = (key > 0) & ((key > least) | ((key == least) & (rows[None, :] <= cut)))
    used = tl.max(keep.to(tl.int32), 0)
    total = tl.sum(used, 0)
    start = tl.atomic_add(COUNT, total, mask=total > 0, sem="relaxed")
    place = start + tl.cumsum(used, 0) - 1
    tl.store(INDEX + place, rows, mask=used > 0)
    h = tl.where(keep, h, 0.0).to(VALUE.dtype.element_ty)
    tl.store(VALUE + place[None, :] * TOKENS + tokens[:, None], h, mask=used[None, :] > 0)


@compiled
def down(
    INDEX, VALUE, COUNT, W, BIAS, PARTIAL, TICKET, LAST, OUT, n, D: tl.constexpr, F: tl.constexpr, TOKENS: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A block of columns of b + sum of the listed rows of W2. The last of PARTS programs adds up what all of them found."""
    column = tl.program_id(0)
    part = tl.program_id(1)
    cols = column * COLS + tl.arange(0, COLS)
    tokens = tl.arange(0, TOKENS)
    inside = cols < D
    count = tl.load(COUNT)
    if TOKENS == 1:
        sums = tl.zeros([ROWS, COLS], tl.float32)
    else:
        sums = tl.zeros([TOKENS, COLS], tl.float32)
    for left in tl.range(part * ROWS, count, PARTS * ROWS, num_stages=STAGES):
        i = left + tl.arange(0, ROWS)
        live = i < count
        row = tl.load(INDEX + i, mask=live, other=0).to(tl.int64)
        w = tl.load(W + row[:, None] * D + cols[None, :], mask=live[:, None] & inside[None, :], other=0.0)
        if TOKENS == 1:
            value = tl.load(VALUE + i, mask=live, other=0.0)
            sums += value[:, None] * w.to(tl.float32)
        else:
            value = tl.load(VALUE + i[None, :] * TOKENS + tokens[:, None], mask=live[None, :], other=0.0)
            sums = tl.dot(value, w, sums, input_precision="tf32x3")
    if TOKENS == 1:
        sums = tl.sum(sums, 0)[None, :]
    asked = (tokens < n)[:, None] & inside[None, :]
    at = tokens[:, None] * D + cols[None, :]
    bias = tl.load(BIAS + cols, mask=inside, other=0.0).to(tl.float32)[None, :]
    last = True
    if PARTS == 1:
        tl.store(OUT + at, (sums + bias).to(OUT.dtype.element_ty), mask=asked)
    else:
        tl.store(PARTIAL + part * n * D + at, sums, mask=asked)
        tl.debug_barrier()  # every warp has stored before the ticket says so
        last = tl.atomic_add(TICKET + column, 1) == PARTS - 1
        if last:
            tl.debug_barrier()
            y = tl.zeros([TOKENS, COLS], tl.float32) + bias
            # Past the first-level cache, which does not see what other multiprocessors wrote.
            for other in tl.static_range(PARTS):
                y += tl.load(PARTIAL + other * n * D + at, mask=asked, other=0.0, cache_modifier=".cg")
            tl.store(OUT + at, y.to(OUT.dtype.element_ty), mask=asked)
            tl.store(TICKET + column, 0)
    if last:
        finished = tl.atomic_add(LAST, 1)
        if finished == tl.num_programs(0) - 1:  # all programs have read the count
            tl.store(LAST, 0)
            tl.store(COUNT, 0)
