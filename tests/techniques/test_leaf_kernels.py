"""The Triton kernels of attention inside leaves, in Triton's interpreter: TRITON_INTERPRET=1 python -m pytest FILE.

Indices, masks, stretches and running maxima are shown to be right, also at lengths that no tile divides, and that broken variants are
found. Nothing is shown about layouts or speed: that needs a GPU.
"""

import os
from pathlib import Path

import pytest
import torch
from effbench_implementations.attention import buckets, leaf_kernels, tree

from . import device_code

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("set TRITON_INTERPRET=1", allow_module_level=True)
pytest.importorskip("triton")

SOURCE = Path(leaf_kernels.__file__).with_name("leaf_triton.py")
pytestmark = pytest.mark.usefixtures("interpreter_scalars")
TILES = (16, 16)


def module(folder, *replaced):
    return device_code.module(SOURCE, folder, *replaced)


def drawn(n, height, d=16, batch=2, heads=3, dtype=torch.float32):
    """q, k, v, and the predicates of random trees, as the method has them and padded."""
    torch.manual_seed(n + height)
    q, k, v = (torch.randn(batch, heads, n, d).to(dtype) for _ in range(3))
    nodes = 2**height - 1
    weights, offsets = torch.randn(heads, nodes, d), 0.5 * torch.randn(heads, nodes)
    return q, k, v, weights, offsets, leaf_kernels.padded(weights, offsets)


def leaves_of(x, weights, offsets):
    return tree.leaves(x.float(), weights, offsets)


def attends(at, n, height, causal, dtype=torch.float32):
    q, k, v, weights, offsets, padded = drawn(n, height, dtype=dtype)
    leaf_q, leaf_k = leaves_of(q, weights, offsets), leaves_of(k, weights, offsets)
    wide = (x.double() for x in (q, k, v))
    expected = buckets.attention(*wide, buckets.plan(leaf_q, leaf_k, 2**height, 8), causal)
    found = leaf_kernels.attention(q, k, v, *padded, height, causal, at=at, tiles=TILES)
    assert found.dtype == dtype
    limit = {torch.float32: 1e-4, torch.float16: 5e-3}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "height"), [(1, 2), (16, 0), (37, 2), (64, 4), (50, 5)])
def test_it_is_bucketed_attention(tmp_path, n, height, causal):
    attends(module(tmp_path), n, height, causal)


def test_half_precision(tmp_path):
    attends(module(tmp_path), 37, 2, True, torch.float16)


@pytest.mark.parametrize(
    ("causal", "replaced"),
    [
        (False, ("visible = (own[:, None] == theirs[None, :]) & live[None, :]", "visible = (own[:, None] >= 0) & live[None, :]")),
        (False, ("+ shift + 1)", "+ shift)")),  # without the last leaf of a block
        (False, ("shrink = tl.exp2(top - safe)", "shrink = tl.exp2(top - top)")),
        (True, ("at_q[:, None] >= at_k[None, :]", "at_q[:, None] > at_k[None, :]")),
        (True, ("at_q[:, None] >= at_k[None, :]", "at_q[:, None] >= 0 * at_k[None, :]")),
        (False, ("acc / tl.where(seen, total, 1.0)[:, None], alone", "acc / tl.where(seen, total, 1.0)[:, None], 0.0")),
        (False, ("found = 2 * found + 1 +", "found = 2 * found + 2 -")),
    ],
)
def test_what_is_broken_is_found(tmp_path, causal, replaced):
    with pytest.raises(AssertionError):
        attends(module(tmp_path, replaced), 50, 5, causal)


@pytest.mark.parametrize("causal", [False, True])
def test_no_tile_is_multiplied_that_no_leaf_asks_for(tmp_path, causal):
    at = module(tmp_path)
    q, k, _, _, _, padded = drawn(64, 2)
    everything = 2 * 3 * 64 * 64
    one = drawn(64, 0)[-1]
    assert leaf_kernels.scores(q, k, *one, 0, False, at=at, tiles=TILES) == everything
    assert leaf_kernels.scores(q, k, *one, 0, True, at=at, tiles=TILES) == everything * (1 + 1 / 4) / 2  # blocks up to the diagonal
    assert leaf_kernels.scores(q, k, *padded, 2, causal, at=at, tiles=TILES) < everything * (0.5 if causal else 0.75)


@pytest.mark.parametrize(("n", "height"), [(1, 2), (37, 0), (130, 3)])
def test_sums_and_answers_of_leaves(tmp_path, n, height):
    at = module(tmp_path)
    q, k, v, weights, offsets, padded = drawn(n, height)
    leaf_q, leaf_k = leaves_of(q, weights, offsets), leaves_of(k, weights, offsets)
    total, number = leaf_kernels.leaf_sums(k, v, *padded, height, at=at)
    assert torch.equal(number[..., 0].double(), buckets.counts(leaf_k, 2**height))
    index = leaf_k[..., None].expand(v.shape)
    torch.testing.assert_close(total, torch.zeros_like(total).scatter_add(2, index, v), rtol=1e-5, atol=1e-5)
    table = torch.randn(2, 3, 2**height, 16)
    expected = table.gather(2, leaf_q[..., None].expand(q.shape))
    torch.testing.assert_close(leaf_kernels.rows_of(q, table, *padded, height, at=at), expected)


def test_where_they_cannot_run():
    assert "CUDA" in leaf_kernels.unfit(4, 64, "cpu", "bfloat16")
    assert "float32" in leaf_kernels.unfit(4, 64, "cuda", "float32")
    assert "heads of 16" in leaf_kernels.unfit(4, 48, "cuda", "bfloat16")
    assert "height 6" in leaf_kernels.unfit(7, 64, "cuda", "bfloat16")
