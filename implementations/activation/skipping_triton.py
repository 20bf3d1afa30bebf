"""The device code of skipping_kernels.py, which says what each kernel is for. Imports Triton: only where a GPU is used.

Arrays are contiguous: X [n, D], W1 and W2 [F, D] with a row for each neuron, H, INDEX and VALUE [n, F], PARTIAL [n, PARTS, D].
COUNT [n], TICKET [n, column blocks] and LAST [n] are zero before a call and zero again after it.
"""

import triton
import triton.language as tl

compiled = triton.jit(do_not_specialize=["n", "k"])


@compiled
def up(
    X, W, BIAS, H, INDEX, VALUE, COUNT, n, D: tl.constexpr, F: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK: tl.constexpr, COMPACT: tl.constexpr,
):  # fmt: skip
    """relu(X W1^T + b) of ROWS neurons for all tokens: to the lists of used neurons (COMPACT), or to H."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    inside = rows < F
    acc = tl.zeros([TOKENS, ROWS, BLOCK], tl.float32)
    for left in range(0, D, BLOCK):
        dims = left + tl.arange(0, BLOCK)
        w = tl.load(W + rows.to(tl.int64)[:, None] * D + dims[None, :], mask=inside[:, None] & (dims < D)[None, :], other=0.0)
        x = tl.load(X + tokens[:, None] * D + dims[None, :], mask=(tokens < n)[:, None] & (dims < D)[None, :], other=0.0)
        acc += w.to(tl.float32)[None, :, :] * x.to(tl.float32)[:, None, :]
    h = tl.sum(acc, 2) + tl.load(BIAS + rows, mask=inside, other=0.0).to(tl.float32)[None, :]
    h = tl.where(h <= 0.0, 0.0, h)  # a NaN stays
    asked = (tokens < n)[:, None] & inside[None, :]
    at = tokens[:, None] * F
    if COMPACT:
        used = asked & ((h <= 0.0) == 0)
        ones = used.to(tl.int32)
        total = tl.sum(ones, 1)
        start = tl.zeros([TOKENS], tl.int32)
        # One scalar atomic for each token: the places of these neurons in its list. The order of a list is that of arrival.
        for token in tl.static_range(TOKENS):
            own = tl.sum(tl.where(tokens == token, total, 0), 0)
            came = tl.atomic_add(COUNT + token, own, mask=token < n)
            start = tl.where(tokens == token, came, start)
        place = at + start[:, None] + tl.cumsum(ones, 1) - 1
        tl.store(INDEX + place, tl.broadcast_to(rows[None, :], [TOKENS, ROWS]), mask=used)
        tl.store(VALUE + place, h, mask=used)
    else:
        tl.store(H + at + rows[None, :], h.to(H.dtype.element_ty), mask=asked)


@compiled
def select(H, INDEX, VALUE, COUNT, k, F: tl.constexpr, WIDE: tl.constexpr, BITS: tl.constexpr):
    """The list of one token from H: the k largest above zero, ties to the first neurons. One program a token.

    Bits of numbers that are not negative sort as they do: the k-th largest is found bit by bit, then two bits a pass, by counting
    three thresholds in one sum (21 bits each).
    """
    token = tl.program_id(0)
    neurons = tl.arange(0, WIDE)
    inside = neurons < F
    h = tl.load(H + token * F + neurons, mask=inside, other=0.0)
    h = tl.where(h <= 0.0, 0.0, h)
    if BITS == 15:
        bits = h.to(tl.int16, bitcast=True).to(tl.int32) & 0x7FFF
    else:
        bits = h.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    least = tl.where(tl.sum((bits >= (1 << (BITS - 1))).to(tl.int32), 0) >= k, 1 << (BITS - 1), 0)
    for step in tl.static_range((BITS - 1) // 2):
        shift = BITS - 3 - 2 * step  # a number known to the compiler, another one in each pass
        counts = (bits >= least + (1 << shift)).to(tl.int64)
        counts += (bits >= least + (2 << shift)).to(tl.int64) << 21
        counts += (bits >= least + (3 << shift)).to(tl.int64) << 42
        found = tl.sum(counts, 0)
        passed = ((found & 0x1FFFFF) >= k).to(tl.int32) + (((found >> 21) & 0x1FFFFF) >= k).to(tl.int32)
        passed += ((found >> 42) >= k).to(tl.int32)
        least += passed << shift
    above = bits > least
    tie = (bits == least) & (bits > 0)
    room = k - tl.sum(above.to(tl.int32), 0)
    keep = (above | (tie & (tl.cumsum(tie.to(tl.int32), 0) <= room))) & inside
    place = token * F + tl.cumsum(keep.to(tl.int32), 0) - 1
    tl.store(INDEX + place, neurons, mask=keep)
    tl.store(VALUE + place, h.to(tl.float32), mask=keep)
    tl.store(COUNT + token, tl.sum(keep.to(tl.int32), 0))


@compiled
def down(
    INDEX, VALUE, COUNT, W, BIAS, PARTIAL, TICKET, LAST, OUT, D: tl.constexpr, F: tl.constexpr, COLS: tl.constexpr,
    ROWS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """A block of columns of b + sum of the used rows of W2. The last of PARTS programs adds up what all of them found."""
    column = tl.program_id(0)
    part = tl.program_id(1)
    token = tl.program_id(2)
    cols = column * COLS + tl.arange(0, COLS)
    inside = cols < D
    count = tl.load(COUNT + token)
    acc = tl.zeros([ROWS, COLS], tl.float32)
    for left in range(part * ROWS, count, PARTS * ROWS):
        i = left + tl.arange(0, ROWS)
        live = i < count
        row = tl.load(INDEX + token * F + i, mask=live, other=0).to(tl.int64)
        value = tl.load(VALUE + token * F + i, mask=live, other=0.0)
        w = tl.load(W + row[:, None] * D + cols[None, :], mask=live[:, None] & inside[None, :], other=0.0)
        acc += value[:, None] * w.to(tl.float32)
    tl.store(PARTIAL + (token * PARTS + part) * D + cols, tl.sum(acc, 0), mask=inside)
    tl.debug_barrier()  # every warp has stored before the ticket says so
    done = tl.atomic_add(TICKET + token * tl.num_programs(0) + column, 1)
    if done == PARTS - 1:
        tl.debug_barrier()
        parts = tl.arange(0, PARTS)
        # Past the first-level cache, which does not see what other multiprocessors wrote.
        found = tl.load(
            PARTIAL + (token * PARTS + parts[:, None]) * D + cols[None, :], mask=inside[None, :], other=0.0, cache_modifier=".cg"
        )
        y = tl.sum(found, 0) + tl.load(BIAS + cols, mask=inside, other=0.0).to(tl.float32)
        tl.store(OUT + token * D + cols, y.to(OUT.dtype.element_ty), mask=inside)
        tl.store(TICKET + token * tl.num_programs(0) + column, 0)
        finished = tl.atomic_add(LAST + token, 1)
        if finished == tl.num_programs(0) - 1:  # all programs of the token have read its count
            tl.store(LAST + token, 0)
            tl.store(COUNT + token, 0)
