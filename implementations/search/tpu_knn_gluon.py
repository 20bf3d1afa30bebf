"""`streamed` of tpu_knn_triton.py by hand: warps in GROUPS of four that do not wait for each other. Imports Triton 3.6.

A group owns 64 queries; all groups read the same tile of the base, so that a byte from the L2 cache is used by 64 GROUPS queries. A
slot of shared memory is `ready` when its bytes are there and `free` when every group has multiplied them: one group selects while
the others multiply. The first group also asks for the bytes: a warp of its own would leave too few registers for three groups.
What a mark means is told in tpu_knn_triton.py.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

LOWEST = gl.constexpr(-3.0e38)  # as in tpu_knn_triton.py


def described(matrix, rows: int, depth: int) -> TensorDescriptor:
    """`matrix`, bfloat16, for `grouped`: loaded in blocks of rows x depth."""
    return TensorDescriptor.from_tensor(matrix, [rows, depth], gl.NVMMASharedLayout.get_default_for([rows, depth], gl.bfloat16))


@gluon.jit
def after(slot, phase, SLOTS: gl.constexpr):
    """The slot after `slot`, and the parity of its barriers."""
    wraps = slot + 1 == SLOTS
    return gl.where(wraps, 0, slot + 1), gl.where(wraps, phase ^ 1, phase)


@gluon.jit
def fetch(
    queries, base, q, x, ready, free, top, start, stride, left, chunks, chunk, slot, phase, GROUPS: gl.constexpr,
    SLOTS: gl.constexpr,
):  # fmt: skip
    """Ask for a chunk of a tile, where any is left; what to ask for next."""
    DEPTH: gl.constexpr = base.block_type.shape[1]
    more = left > 0
    mbarrier.wait(free.index(slot), phase ^ 1, pred=more)
    bar = ready.index(slot)
    mbarrier.expect(bar, GROUPS * queries.block_type.nbytes + base.block_type.nbytes, pred=more)
    for group in gl.static_range(GROUPS):
        tma.async_copy_global_to_shared(queries, [top + 64 * group, chunk * DEPTH], bar, q.index(slot * GROUPS + group), pred=more)
    tma.async_copy_global_to_shared(base, [start, chunk * DEPTH], bar, x.index(slot), pred=more)
    ends = chunk + 1 == chunks
    slot, phase = after(slot, phase, SLOTS)
    return gl.where(ends, start + stride, start), left - 1, gl.where(ends, 0, chunk + 1), slot, phase


@gluon.jit
def work(
    shared, group: gl.constexpr, GROUPS: gl.constexpr, SLOTS: gl.constexpr, FOLD: gl.constexpr, L2: gl.constexpr,
    RAGGED: gl.constexpr,
):  # fmt: skip
    """One group: its 64 queries against every tile of the part, the best of every bin in registers."""
    queries, base, q, x, ready, free, BIAS, OUT, m, n, top, start, stride, steps, chunks, keep, wide, to = shared
    COLUMNS: gl.constexpr = x.shape[1]
    BINS: gl.constexpr = COLUMNS // FOLD
    TILE: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    KEPT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BINS, 16])
    within = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, TILE))
    best = gl.full([64, BINS], LOWEST, gl.float32, layout=KEPT)
    scores = gl.zeros([64, COLUMNS], gl.float32, layout=TILE)
    slot, phase, before, code = 0, 0, 0, 0
    if group == 0:
        at, left, piece, place, turn = start, steps * chunks, 0, 0, 0
        for _ in gl.static_range(SLOTS - 1):
            at, left, piece, place, turn = fetch(
                queries, base, q, x, ready, free, top, at, stride, left, chunks, piece, place, turn, GROUPS, SLOTS
            )
    for _ in range(steps):
        for chunk in range(chunks):
            mbarrier.wait(ready.index(slot), phase)
            scores = warpgroup_mma(
                q.index(slot * GROUPS + group), x.index(slot).permute((1, 0)), scores, use_acc=chunk > 0, is_async=True
            )
            # The product before this one has ended: one is always waiting in line.
            scores = warpgroup_mma_wait(1, deps=[scores])
            mbarrier.arrive(free.index(before), pred=chunk > 0)
            if group == 0:
                at, left, piece, place, turn = fetch(
                    queries, base, q, x, ready, free, top, at, stride, left, chunks, piece, place, turn, GROUPS, SLOTS
                )
            before = slot
            slot, phase = after(slot, phase, SLOTS)
        scores = warpgroup_mma_wait(0, deps=[scores])
        mbarrier.arrive(free.index(before))
        columns = start + within
        if L2:
            if RAGGED:
                scores -= gl.load(BIAS + columns, mask=columns < n, other=0.0)[None, :]
            else:
                scores -= gl.load(BIAS + columns)[None, :]
        bits = gl.inline_asm_elementwise(
            "lop3.b32 $0, $1, $2, $3, 0xEA;", "=r,r,r,r",
            [scores.to(gl.int32, bitcast=True), keep, (code + within // BINS)[None, :]], gl.int32, True, 1,
        )  # fmt: skip
        marked = bits.to(gl.float32, bitcast=True)
        if RAGGED:
            marked = gl.where((columns < n)[None, :], marked, LOWEST)
        found = gl.max(gl.reshape(marked, (64, FOLD, BINS)), 1)
        best = gl.maximum(best, gl.convert_layout(found, KEPT, assert_trivial=True))
        code += FOLD
        start += stride
    rows = top + 64 * group + gl.arange(0, 64, layout=gl.SliceLayout(1, KEPT))
    places = to + gl.arange(0, BINS, layout=gl.SliceLayout(0, KEPT))
    gl.store(OUT + rows.to(gl.int64)[:, None] * wide + places[None, :], best, mask=(rows < m)[:, None])


@gluon.jit(do_not_specialize=["m", "n", "first", "tiles", "parts", "keep", "wide", "to", "chunks"])
def grouped(
    queries, base, BIAS, OUT, m, n, first, tiles, parts, keep, wide, to, chunks, L2: gl.constexpr, RAGGED: gl.constexpr,
    GROUPS: gl.constexpr, SLOTS: gl.constexpr, FOLD: gl.constexpr,
):  # fmt: skip
    """As `streamed`; `queries` in blocks of 64 rows, `base` in blocks of a tile; the warps of the launch are the first group."""
    COLUMNS: gl.constexpr = base.block_type.shape[0]
    DEPTH: gl.constexpr = base.block_type.shape[1]
    top, part = gl.program_id(0) * (64 * GROUPS), gl.program_id(1)
    q = gl.allocate_shared_memory(queries.dtype, [SLOTS * GROUPS, 64, DEPTH], queries.layout)
    x = gl.allocate_shared_memory(base.dtype, [SLOTS, COLUMNS, DEPTH], base.layout)
    ready = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(SLOTS):
        mbarrier.init(ready.index(slot), count=1)
        mbarrier.init(free.index(slot), count=GROUPS)
    steps = (tiles - part + parts - 1) // parts
    start, stride = (first + part) * COLUMNS, parts * COLUMNS
    shared = (queries, base, q, x, ready, free, BIAS, OUT, m, n, top, start, stride, steps, chunks, keep, wide, to)
    gl.static_assert(GROUPS == 2 or GROUPS == 3)
    if GROUPS == 2:
        gl.warp_specialize(
            [(work, (shared, 0, GROUPS, SLOTS, FOLD, L2, RAGGED)), (work, (shared, 1, GROUPS, SLOTS, FOLD, L2, RAGGED))], [4], [232]
        )
    else:
        gl.warp_specialize(
            [
                (work, (shared, 0, GROUPS, SLOTS, FOLD, L2, RAGGED)), (work, (shared, 1, GROUPS, SLOTS, FOLD, L2, RAGGED)),
                (work, (shared, 2, GROUPS, SLOTS, FOLD, L2, RAGGED)),
            ],
            [4, 4], [168, 168],
        )  # fmt: skip
