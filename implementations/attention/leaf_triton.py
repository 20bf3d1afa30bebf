"""The device code of leaf_kernels.py, which says what each kernel is for. Imports Triton: only where a GPU is used.

Arrays are contiguous: tokens [group, n, D], where a group is one head of one sequence; W [heads, P, D] and B [heads, P] hold the
predicates of a tree in the order of a heap, float32, padded to P. Offsets are 64-bit, since long inputs pass 2^31 elements.
"""

import triton
import triton.language as tl

# Lengths and counts change from call to call: no variant of a kernel for n = 1 or n divisible by 16.
compiled = triton.jit(do_not_specialize=["n", "span", "heads", "groups", "offset"])


@triton.jit
def leaf_of(x, w, b, HEIGHT: tl.constexpr, P: tl.constexpr):
    """Leaf of each row of x [T, D]. Products of full float32: a sign that TF32 turns sends a token elsewhere than PyTorch does."""
    right = (tl.dot(x.to(tl.float32), tl.trans(w), input_precision="ieee") > b[None, :]).to(tl.int32)
    nodes = tl.arange(0, P)
    found = tl.sum(right, 1) * 0
    for _ in tl.static_range(HEIGHT):
        found = 2 * found + 1 + tl.sum(tl.where(nodes[None, :] == found[:, None], right, 0), 1)
    return found - ((1 << HEIGHT) - 1)


@compiled
def route(X, W, B, KEY, n, heads, offset, HEIGHT: tl.constexpr, P: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr):
    """KEY [offset + group, n]: (offset + group) 2^h + leaf, so that one sort of them all sorts each group by leaf."""
    group = tl.program_id(1).to(tl.int64)
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    nodes = tl.arange(0, P)
    dims = tl.arange(0, D)
    inside = tokens < n
    w = tl.load(W + ((group % heads) * P + nodes[:, None]) * D + dims[None, :])
    b = tl.load(B + (group % heads) * P + nodes)
    x = tl.load(X + (group * n + tokens[:, None]) * D + dims[None, :], mask=inside[:, None], other=0.0)
    row = offset + group
    key = row * (1 << HEIGHT) + leaf_of(x, w, b, HEIGHT, P)
    tl.store(KEY + row * n + tokens, key.to(tl.int32), mask=inside)


@compiled
def attend(
    Q, K, V, OUT, KEY, INDEX, START, HIGH, n, groups, scale, HEIGHT: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """Softmax of ROWS sorted queries over the keys of their leaves, which are one stretch of the sorted keys.

    KEY and INDEX: sorted keys and where they stood, queries' groups first, then those of the keys. START: where each value of a key
    begins. HIGH [group, block]: the end of the stretch under a causal mask, since inside a leaf tokens stand in order.
    """
    group = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, D)
    inside = rows < n
    start = group * n
    at_q = tl.load(INDEX + start + rows, mask=inside, other=0) - tl.where(inside, start, 0)
    own = tl.load(KEY + start + rows, mask=inside, other=-1)
    shift = groups.to(tl.int64) << HEIGHT  # from a query's key to that of its leaf's keys
    low = tl.load(START + tl.load(KEY + start + block * ROWS) + shift)
    if CAUSAL:
        high = tl.load(HIGH + group * tl.num_programs(0) + block)
    else:
        high = tl.load(START + tl.load(KEY + start + tl.minimum(block * ROWS + ROWS, n) - 1) + shift + 1)
    place = (start + at_q[:, None]) * D + dims[None, :]
    q = tl.load(Q + place, mask=inside[:, None], other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, D], tl.float32)
    base = (groups + group) * n
    for left in range(low, high, COLS):
        columns = left + tl.arange(0, COLS)
        live = columns < high
        at_k = tl.load(INDEX + columns, mask=live, other=0) - tl.where(live, base, 0)
        theirs = tl.load(KEY + columns, mask=live, other=-1) - shift
        there = (start + at_k[:, None]) * D + dims[None, :]
        k = tl.load(K + there, mask=live[:, None], other=0.0)
        v = tl.load(V + there, mask=live[:, None], other=0.0)
        visible = (own[:, None] == theirs[None, :]) & live[None, :]
        if CAUSAL:
            visible = visible & (at_q[:, None] >= at_k[None, :])
        s = tl.where(visible, tl.dot(q, tl.trans(k)) * scale, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        safe = tl.where(new == float("-inf"), 0.0, new)  # a row that has seen no key yet
        p = tl.exp2(s - safe[:, None])
        shrink = tl.exp2(top - safe)
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v)
        top = new
    alone = tl.load(V + place, mask=inside[:, None], other=0.0).to(tl.float32)
    seen = total > 0.0
    out = tl.where(seen[:, None], acc / tl.where(seen, total, 1.0)[:, None], alone)
    tl.store(OUT + place, out.to(OUT.dtype.element_ty), mask=inside[:, None])


@compiled
def sums(
    K, V, W, B, ACC, COUNT, n, span, heads, HEIGHT: tl.constexpr, P: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr
):  # fmt: skip
    """ACC [group, part, P, D] and COUNT [group, part, P]: sums and number of the values in each leaf, over one span of the keys."""
    group = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    nodes = tl.arange(0, P)
    dims = tl.arange(0, D)
    w = tl.load(W + ((group % heads) * P + nodes[:, None]) * D + dims[None, :])
    b = tl.load(B + (group % heads) * P + nodes)
    acc = tl.zeros([P, D], tl.float32)
    count = tl.zeros([P], tl.float32)
    stop = tl.minimum(part * span + span, n)
    for left in range(part * span, stop, TOKENS):
        tokens = left + tl.arange(0, TOKENS)
        inside = tokens < stop
        place = (group * n + tokens[:, None]) * D + dims[None, :]
        k = tl.load(K + place, mask=inside[:, None], other=0.0)
        v = tl.load(V + place, mask=inside[:, None], other=0.0)
        leaf = tl.where(inside, leaf_of(k, w, b, HEIGHT, P), -1)
        member = nodes[:, None] == leaf[None, :]
        acc += tl.dot(member.to(v.dtype), v)
        count += tl.sum(member.to(tl.float32), 1)
    to = (group * tl.num_programs(1) + part) * P + nodes
    tl.store(COUNT + to, count)
    tl.store(ACC + to[:, None] * D + dims[None, :], acc)


@compiled
def answer(Q, W, B, TABLE, OUT, n, heads, HEIGHT: tl.constexpr, P: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr):
    """OUT of each query: the row of its leaf in TABLE [group, 2^h, D]."""
    group = tl.program_id(1).to(tl.int64)
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    nodes = tl.arange(0, P)
    dims = tl.arange(0, D)
    inside = tokens < n
    w = tl.load(W + ((group % heads) * P + nodes[:, None]) * D + dims[None, :])
    b = tl.load(B + (group % heads) * P + nodes)
    place = (group * n + tokens[:, None]) * D + dims[None, :]
    leaf = leaf_of(tl.load(Q + place, mask=inside[:, None], other=0.0), w, b, HEIGHT, P)
    row = tl.load(TABLE + (group * (1 << HEIGHT) + leaf[:, None]) * D + dims[None, :], mask=inside[:, None], other=0.0)
    tl.store(OUT + place, row, mask=inside[:, None])
