"""The device code of tpu_knn_fused.py, which says what each kernel is for. Imports Triton: only where a GPU is used.

Queries [m, D] and base [n, D] come as tensor descriptors in half precision: rows and columns beyond the end read as zero. A tile is
COLUMNS rows of the base, in FOLD layers: column c of it belongs to bin c mod COLUMNS / FOLD of the part that owns the tile; part p
of `parts` owns tiles p, p + parts, ... A survivor is one float: its score, whose lowest bits tell which tile and which layer it
came from. So a score costs two instructions (merge the bits, maximum) and a bin one register.
"""

import os

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.0e38)  # finite: the low bits of an infinity would make it NaN
NOTHING = tl.constexpr(-2.9e38)

compiled = triton.jit(do_not_specialize=["m", "n", "first", "tiles", "parts", "keep", "wide", "to", "tail", "k", "count"])


ASSEMBLY = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")


@triton.jit
def marked(scores, keep, code):
    """The bits of `scores` where `keep` has ones, those of `code` elsewhere."""
    bits = scores.to(tl.int32, bitcast=True)
    if ASSEMBLY:  # left alone, the compiler makes two instructions of this in some loops
        bits = tl.inline_asm_elementwise("lop3.b32 $0, $1, $2, $3, 0xEA;", "=r,r,r,r", [bits, keep, code], tl.int32, True, 1)
    else:
        bits = (bits & keep) | code
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def better(
    best, scores, BIAS, n, start, keep, code, L2: tl.constexpr, RAGGED: tl.constexpr, ROWS: tl.constexpr, BINS: tl.constexpr,
    FOLD: tl.constexpr,
):  # fmt: skip
    """`best` [ROWS, BINS] after scores [ROWS, FOLD BINS] of the rows from `start`; their FOLD layers get the marks from `code`."""
    columns = start + tl.arange(0, FOLD * BINS)
    if L2:
        scores -= tl.load(BIAS + columns, mask=columns < n if RAGGED else None, other=0.0 if RAGGED else None)[None, :]
    layers = tl.reshape(scores, (ROWS, FOLD, BINS))
    layers = marked(layers, keep, (code + tl.arange(0, FOLD))[None, :, None])
    if RAGGED:
        layers = tl.where(tl.reshape(columns < n, (1, FOLD, BINS)), layers, LOWEST)
    return tl.maximum(best, tl.max(layers, 1))


@triton.jit
def write(OUT, best, m, top, left, wide, ROWS: tl.constexpr, BINS: tl.constexpr):
    rows = top + tl.arange(0, ROWS)
    at = rows.to(tl.int64)[:, None] * wide + (left + tl.arange(0, BINS))[None, :]
    tl.store(OUT + at, best, mask=(rows < m)[:, None])


@compiled
def resident(
    queries, base, BIAS, OUT, m, n, first, tiles, parts, keep, wide, to, L2: tl.constexpr, RAGGED: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, FOLD: tl.constexpr,
):  # fmt: skip
    """Vectors that fit one tile in depth: the queries stay in shared memory, the base streams past them."""
    BINS: tl.constexpr = COLUMNS // FOLD
    top, part = tl.program_id(0) * ROWS, tl.program_id(1)
    q = queries.load([top, 0])
    best = tl.full([ROWS, BINS], LOWEST, tl.float32)
    code = 0
    start = (first + part) * COLUMNS
    for _ in range((tiles - part + parts - 1) // parts):
        x = base.load([start, 0])
        best = better(best, tl.dot(q, x.T), BIAS, n, start, keep, code, L2, RAGGED, ROWS, BINS, FOLD)
        code += FOLD
        start += parts * COLUMNS
    write(OUT, best, m, top, to + part * BINS, wide, ROWS, BINS)


@compiled
def streamed(
    queries, base, BIAS, OUT, m, n, first, tiles, parts, keep, wide, to, chunks, L2: tl.constexpr, RAGGED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, FOLD: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Deeper vectors, DEPTH dimensions at a time. One loop over tiles and depth, so that loads never wait for a tile to end."""
    BINS: tl.constexpr = COLUMNS // FOLD
    top, part = tl.program_id(0) * ROWS, tl.program_id(1)
    best = tl.full([ROWS, BINS], LOWEST, tl.float32)
    scores = tl.zeros([ROWS, COLUMNS], tl.float32)
    chunk, code = 0, 0
    start = (first + part) * COLUMNS
    for _ in range((tiles - part + parts - 1) // parts * chunks):
        q = queries.load([top, chunk * DEPTH])
        x = base.load([start, chunk * DEPTH])
        scores = tl.dot(q, x.T, scores)
        # Where to load next must not come out of the branch below: it needs the product, and no load would be made ahead of one.
        here, ends = start, chunk + 1 == chunks
        start = tl.where(ends, start + parts * COLUMNS, start)
        chunk = tl.where(ends, 0, chunk + 1)
        if ends:
            best = better(best, scores, BIAS, n, here, keep, code, L2, RAGGED, ROWS, BINS, FOLD)
            scores = tl.zeros([ROWS, COLUMNS], tl.float32)
            code += FOLD
    write(OUT, best, m, top, to + part * BINS, wide, ROWS, BINS)


@compiled
def choose(
    SURVIVORS, QUERIES, VECTORS, ANSWER, d, wide, parts, tail, count, k, keep, L2: tl.constexpr, BINS: tl.constexpr,
    FOLD: tl.constexpr, WIDTH: tl.constexpr, COUNT: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One query: its `count` best survivors, rescored in float32 from the vectors themselves; the k best, nearest first."""
    query = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, WIDTH)
    slots = tl.arange(0, COUNT)
    keys = tl.load(SURVIVORS + query * wide + places, mask=places < wide, other=LOWEST)
    rows = tl.full([COUNT], -1, tl.int32)
    for slot in range(count):
        key = tl.max(keys, 0)
        place = tl.min(tl.where(keys == key, places, WIDTH), 0)
        keys = tl.where(places == place, LOWEST, keys)
        code = key.to(tl.int32, bitcast=True) & ~keep
        part = place // BINS
        # The last tile, where it is not full, has bins of its own behind those of the parts.
        tile = tl.where(part < parts, part + (code // FOLD) * parts, tail)
        row = tl.where(key > NOTHING, (tile * FOLD + code % FOLD) * BINS + place % BINS, -1)
        rows = tl.where(slots == slot, row, rows)
    scores = tl.zeros([COUNT], tl.float32)
    for left in range(0, d, DEPTH):
        dims = left + tl.arange(0, DEPTH)
        q = tl.load(QUERIES + query * d + dims, mask=dims < d, other=0.0)
        at = rows.to(tl.int64)[:, None] * d + dims[None, :]
        x = tl.load(VECTORS + at, mask=(rows >= 0)[:, None] & (dims < d)[None, :], other=0.0)
        if L2:
            x -= q[None, :]
            scores -= tl.sum(tl.where((rows >= 0)[:, None], x * x, 0.0), 1)
        else:
            scores += tl.sum(x * q[None, :], 1)
    scores = tl.where(rows >= 0, scores, float("-inf"))
    ahead = (scores[None, :] > scores[:, None]) | ((scores[None, :] == scores[:, None]) & (slots[None, :] < slots[:, None]))
    place = tl.sum(ahead.to(tl.int32), 1)
    tl.store(ANSWER + query * k + place, rows.to(tl.int64), mask=place < k)
