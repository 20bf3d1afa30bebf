"""The device code of favor_kernels.py, which says what each kernel is for. Imports Triton: only where a GPU is used.

Arrays are contiguous: tokens [head, n, D], w [heads, M, D], partial sums [head, part, M] and [head, part, M, D], float32.
`head` counts batch * heads. Offsets are 64-bit, since long inputs pass 2^31 elements.
"""

import triton
import triton.language as tl

# Lengths and counts change from call to call: no variant of a kernel for n = 1 or n divisible by 16.
compiled = triton.jit(do_not_specialize=["n", "span", "parts", "each", "heads"])


@compiled
def keys(
    K, V, W, A, TOP, SUM, ACC, NORM, n, span, heads, slope, half, M: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    TOKENS: tl.constexpr, NORMS: tl.constexpr,
):  # fmt: skip
    """Running maximum, sum and weighted values of a block of features over the keys of one span.

    NORMS: NORM [head, n] keeps what is subtracted from the exponents of a key, for `causal`.
    """
    head = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    rows = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    steps = tl.arange(0, TOKENS)
    tile = steps[:, None] * D + dims[None, :]
    w = tl.load(W + ((head % heads) * M + rows[:, None]) * D + dims[None, :])
    scale = slope * tl.sqrt(1.0 - 4.0 * tl.load(A + head))
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    start = part * span
    stop = tl.minimum(start + span, n)
    for left in range(start, stop, TOKENS):
        # A scalar and one tile of offsets for all arrays: addresses of their own would take registers from the tiles.
        first = head * n + left
        inside = steps < stop - left
        k = tl.load(K + first * D + tile, mask=inside[:, None], other=0.0)
        v = tl.load(V + first * D + tile, mask=inside[:, None], other=0.0)
        wide = k.to(tl.float32)
        norm = half * tl.sum(wide * wide, 1)
        if NORMS:
            tl.store(NORM + first + steps, norm, mask=inside)
        h = tl.dot(w, tl.trans(k)) * scale - tl.where(inside, norm, float("inf"))[None, :]
        new = tl.maximum(top, tl.max(h, 1))
        p = tl.exp2(h - new[:, None])
        shrink = tl.exp2(top - new)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v)
        top = new
    to = (head * tl.num_programs(1) + part) * M + rows
    tl.store(TOP + to, top)
    tl.store(SUM + to, total)
    tl.store(ACC + to[:, None] * D + dims[None, :], acc)


@compiled
def merge(
    TOP, SUM, ACC, W, A, BIAS, MEANS, parts, heads, twice, M: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """All spans of a head: BIAS = log2 of the sum over keys, plus A |w|^2 of both sides; MEANS = weighted mean of values."""
    head = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    for part in range(parts):
        top = tl.maximum(top, tl.load(TOP + (head * parts + part) * M + rows))
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    for part in range(parts):
        at = (head * parts + part) * M + rows
        weight = tl.exp2(tl.load(TOP + at) - top)
        total += weight * tl.load(SUM + at)
        acc += weight[:, None] * tl.load(ACC + at[:, None] * D + dims[None, :])
    w = tl.load(W + ((head % heads) * M + rows[:, None]) * D + dims[None, :]).to(tl.float32)
    bias = top + tl.log2(total) + twice * tl.load(A + head) * tl.sum(w * w, 1)
    tl.store(BIAS + head * M + rows, bias)
    at = (head * M + rows[:, None]) * D + dims[None, :]
    tl.store(MEANS + at, (acc / total[:, None]).to(MEANS.dtype.element_ty))


@compiled
def queries(
    Q, W, A, BIAS, MEANS, OUT, n, each, heads, slope, M: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr
):  # fmt: skip
    """Softmax attention of `each` tiles of queries over the features, values MEANS."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, M)
    dims = tl.arange(0, D)
    w = tl.load(W + ((head % heads) * M + rows[:, None]) * D + dims[None, :])
    means = tl.load(MEANS + (head * M + rows[:, None]) * D + dims[None, :])
    bias = tl.load(BIAS + head * M + rows)
    scale = slope * tl.sqrt(1.0 - 4.0 * tl.load(A + head))
    first = tl.program_id(0) * each * TOKENS
    for left in range(first, tl.minimum(first + each * TOKENS, n), TOKENS):
        tokens = left + tl.arange(0, TOKENS)
        inside = tokens < n
        at = (head * n + tokens[:, None]) * D + dims[None, :]
        q = tl.load(Q + at, mask=inside[:, None], other=0.0)
        h = tl.dot(q, tl.trans(w)) * scale + bias[None, :]
        p = tl.exp2(h - tl.max(h, 1)[:, None])
        out = tl.dot(p.to(means.dtype), means) / tl.sum(p, 1)[:, None]
        tl.store(OUT + at, out.to(OUT.dtype.element_ty), mask=inside[:, None])


@compiled
def fetch(TOP, SUM, ACC, head, part, parts, rows, dims, M: tl.constexpr, D: tl.constexpr):
    """Maximum, sum and weighted values of one part; zeros beyond the last."""
    at = (head * parts + part) * M + rows
    there = (rows < M) & (part < parts)
    top = tl.load(TOP + at, mask=there, other=0.0)
    total = tl.load(SUM + at, mask=there, other=0.0)
    return top, total, tl.load(ACC + at[:, None] * D + dims[None, :], mask=there[:, None], other=0.0)


@compiled
def prefix(
    TOP, SUM, ACC, W, A, REFERENCE, BIAS, BEFORE, STATE, parts, heads, twice, M: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """What each part finds: REFERENCE = the maximum up to its own end, BIAS = that plus A |w|^2 of both sides, for the queries,
    BEFORE and STATE = the sums of all parts before it, relative to REFERENCE.

    The loop carries sums through all parts of a head: two parts are on their way from memory while one is added.
    """
    head = tl.program_id(0).to(tl.int64)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    w = tl.load(W + ((head % heads) * M + rows[:, None]) * D + dims[None, :]).to(tl.float32)
    fixed = twice * tl.load(A + head) * tl.sum(w * w, 1)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    here, sums, values = fetch(TOP, SUM, ACC, head, 0, parts, rows, dims, M, D)
    here1, sums1, values1 = fetch(TOP, SUM, ACC, head, 1, parts, rows, dims, M, D)
    for part in range(parts):
        here2, sums2, values2 = fetch(TOP, SUM, ACC, head, part + 2, parts, rows, dims, M, D)
        new = tl.maximum(top, here)
        shrink = tl.exp2(top - new)
        grow = tl.exp2(here - new)
        total = total * shrink
        acc = acc * shrink[:, None]
        at = (head * parts + part) * M + rows
        tl.store(REFERENCE + at, new)
        tl.store(BIAS + at, new + fixed)
        tl.store(BEFORE + at, total)
        tl.store(STATE + at[:, None] * D + dims[None, :], acc.to(STATE.dtype.element_ty))
        total += sums * grow
        acc += values * grow[:, None]
        top = new
        here, sums, values = here1, sums1, values1
        here1, sums1, values1 = here2, sums2, values2


@compiled
def causal(
    Q, K, V, W, A, NORM, REFERENCE, BIAS, BEFORE, STATE, OUT, n, span, heads, slope, M: tl.constexpr, D: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """One segment of one head, chunk by chunk. Keys and state are relative to one maximum of each feature, that at the
    segment's end: a chunk waits for the one before it in nothing but the sum of the states.

    The state takes a quarter of the registers and each tile of exponents another, so little else may live in them. Keys come
    before queries: their features are in shared memory and in the state before the queries' exist. What columns of a tile need
    (BIAS, NORM) is read in each chunk. The sums of the weights are products with eight equal columns, the fewest there are, on
    bfloat16 features: those that the values meet.
    """
    head = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    rows = tl.arange(0, M)
    dims = tl.arange(0, D)
    steps = tl.arange(0, TOKENS)
    tile = steps[:, None] * D + dims[None, :]
    w = tl.load(W + ((head % heads) * M + rows[:, None]) * D + dims[None, :])
    scale = slope * tl.sqrt(1.0 - 4.0 * tl.load(A + head))
    at = (head * tl.num_programs(1) + part) * M
    reference = tl.load(REFERENCE + at + rows)
    acc = tl.load(STATE + (at + rows[:, None]) * D + dims[None, :]).to(tl.float32)
    total = tl.load(BEFORE + at + rows)[:, None] + tl.zeros([M, 8], tl.float32)
    ones = tl.full([TOKENS, 8], 1.0, tl.float32).to(tl.bfloat16)
    start = part * span
    for left in range(start, tl.minimum(start + span, n), TOKENS):
        first = head * n + left
        inside = steps < n - left
        q = tl.load(Q + first * D + tile, mask=inside[:, None], other=0.0)
        k = tl.load(K + first * D + tile, mask=inside[:, None], other=0.0)
        v = tl.load(V + first * D + tile, mask=inside[:, None], other=0.0).to(tl.bfloat16)
        norm = tl.load(NORM + first + steps, mask=inside, other=float("inf"))
        bias = tl.load(BIAS + at + rows)
        state = acc.to(tl.bfloat16)
        before = total.to(tl.bfloat16)
        h = tl.dot(w, tl.trans(k)) * scale - (norm[None, :] + reference[:, None])
        pk = tl.exp2(h).to(tl.bfloat16)
        total = tl.dot(pk, ones, total)
        acc = tl.dot(pk, v, acc)
        g = tl.dot(q, tl.trans(w)) * scale + bias[None, :]
        pq = tl.exp2(g - tl.max(g, 1)[:, None]).to(tl.bfloat16)
        sums = tl.max(tl.dot(pq, before), 1)
        out = tl.dot(pq, state)
        # Keeps the denominator from 0: see FLOOR in linear.py.
        scores = tl.where(steps[:, None] >= steps[None, :], tl.dot(pq, pk) + 1e-30, 0.0)
        sums += tl.sum(scores, 1)
        out = tl.dot(scores.to(tl.bfloat16), v, out) / sums[:, None]
        tl.store(OUT + first * D + tile, out.to(OUT.dtype.element_ty), mask=inside[:, None])


@compiled
def moments(X, MOMENTS, n, span, D: tl.constexpr, TOKENS: tl.constexpr):
    """Sums over one span of x and of x^2, [head, part, 2, D]."""
    head = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    dims = tl.arange(0, D)
    sums = tl.zeros([D], tl.float32)
    squares = tl.zeros([D], tl.float32)
    start = part * span
    stop = tl.minimum(start + span, n)
    for left in range(start, stop, TOKENS):
        tokens = left + tl.arange(0, TOKENS)
        x = tl.load(X + (head * n + tokens[:, None]) * D + dims[None, :], mask=(tokens < stop)[:, None], other=0.0).to(tl.float32)
        sums += tl.sum(x, 0)
        squares += tl.sum(x * x, 0)
    at = (head * tl.num_programs(1) + part) * 2 * D + dims
    tl.store(MOMENTS + at, sums)
    tl.store(MOMENTS + at + D, squares)


@compiled
def optimum(QUERIES, KEYS, A, parts, inverse, scale, D: tl.constexpr):
    """A* of a head from the moments of its queries and keys; `inverse` = 1 / n, `scale` = 1 / sqrt(D)."""
    head = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, D)
    q = tl.zeros([D], tl.float32)
    k = tl.zeros([D], tl.float32)
    squares = tl.zeros([D], tl.float32)
    for part in range(parts):
        at = (head * parts + part) * 2 * D + dims
        q += tl.load(QUERIES + at)
        k += tl.load(KEYS + at)
        squares += tl.load(QUERIES + at + D) + tl.load(KEYS + at + D)
    mean = (tl.sum(squares, 0) * inverse + 2.0 * tl.sum((q * inverse) * (k * inverse), 0)) * scale
    u = mean / D
    tl.store(A + head, -u / (1.0 - 2.0 * u + tl.sqrt((2.0 * u + 1.0) * (2.0 * u + 1.0) + 8.0 * u)))
