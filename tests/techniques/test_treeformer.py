"""Treeformer: the tree is the walk it says, the bucketed computation is masked attention, its skipped work is really skipped."""

import numpy as np
import pytest
import torch
from effbench_implementations.attention import buckets, tree
from effbench_implementations.attention.task import AttentionForward, Given
from effbench_implementations.attention.treeformer import TreeformerTc, TreeformerTf, convex
from effbench_implementations.attention.treeformer_fused import TreeformerTcFused, TreeformerTfFused

from effbench import Case, Run
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.run.exercise import exercise

BATCH, HEADS, LENGTH, DIM = 2, 3, 37, 8


def inputs(n=LENGTH, scale=1.0, seed=0):
    make = [np.random.default_rng(3 * seed + i).standard_normal((BATCH, HEADS, n, DIM), dtype=np.float32) for i in range(3)]
    return make[0] * np.float32(scale), make[1] * np.float32(scale), make[2]


def built(cls=TreeformerTf, causal=False, dtype="float32", **settings):
    method = cls(**{"height": 3, "block": 8, **settings})
    method.run = Run(backend=get("torch"), dtype=dtype)
    given = Given(HEADS, DIM, BATCH, causal, inputs(200, seed=9))
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


def answer(method, *arrays):
    return method.attend(*(torch.from_numpy(np.asarray(x)) for x in arrays)).numpy()


def random_leaves(n, count, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, count, (BATCH, HEADS, n)))


def bucketed(q, k, v, leaf_q, leaf_k, count, block, causal):
    return buckets.attention(q, k, v, buckets.plan(leaf_q, leaf_k, count, block), causal)


def dense(q, k, v, leaf_q, leaf_k, causal):
    """Masked dense attention; rows without a key take their own value."""
    visible = leaf_q[..., :, None] == leaf_k[..., None, :]
    visible = visible.tril() if causal else visible
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible, float("-inf"))
    alone = ~visible.any(-1, keepdim=True)
    return torch.where(alone, v, torch.softmax(logits.masked_fill(alone, 0.0), -1) @ v)


# -- the tree -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [0, 1, 2, 3])
def test_leaves_are_those_of_the_walk(height):
    rng = np.random.default_rng(height)
    weights, offsets = rng.standard_normal((HEADS, 2**height - 1, DIM)), rng.standard_normal((HEADS, 2**height - 1))
    x = inputs(50)[0].astype(np.float64)
    found = tree.leaves(*(torch.from_numpy(a) for a in (x, weights, offsets))).numpy()
    for b, h, i in np.ndindex(found.shape):
        low, high, node = 0, 2**height, 0
        while high - low > 1:
            if weights[h, node] @ x[b, h, i] > offsets[h, node]:
                low, node = (low + high) // 2, 2 * node + 2
            else:
                high, node = (low + high) // 2, 2 * node + 1
        assert found[b, h, i] == low


def test_median_splits_balance_the_keys_of_the_calibration():
    q, k, _ = inputs(256)
    for kind in ("principal", "random"):
        weights, offsets = (torch.from_numpy(a) for a in tree.fit(q, k, 3, np.random.default_rng(0), kind))
        sizes = buckets.counts(tree.leaves(torch.from_numpy(k).double(), weights, offsets), 8).sum(0)
        assert ((sizes - BATCH * 256 / 8).abs() <= 3).all()


def test_fitted_trees_keep_close_pairs_together():
    """Queries that lie near one key each: the principal tree, and even the random one, beat chance at finding it."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1, 1, 16, 32)) * 3
    k = (centres[:, :, rng.integers(0, 16, 400)] + 0.1 * rng.standard_normal((1, 1, 400, 32))).astype(np.float32)
    q = (k + 0.1 * rng.standard_normal(k.shape)).astype(np.float32)
    weights, offsets = (torch.from_numpy(a) for a in tree.fit(q, k, 3, rng, "principal"))
    same = [tree.leaves(torch.from_numpy(x).double(), weights, offsets) for x in (q, k)]
    assert (same[0] == same[1]).double().mean() > 0.7 > 3 / 8


# -- the buckets --------------------------------------------------------------------------------------------------------


def equals_masked_dense(form):
    for causal in (False, True):
        for n, count, block in ((37, 8, 8), (37, 1, 8), (37, 64, 8), (1, 4, 8), (64, 2, 5), (40, 16, 64)):
            q, k, v = (torch.from_numpy(x).double() for x in inputs(n))
            leaf_q, leaf_k = random_leaves(n, count, 1), random_leaves(n, count, 2)
            leaf_k[0, 0] = 0  # leaves without keys, and one with all of them
            x = (q, k, v, leaf_q, leaf_k)
            torch.testing.assert_close(form(*x, count, block, causal), dense(*x, causal), rtol=1e-9, atol=1e-9)


def test_bucketed_attention_is_masked_dense_attention():
    equals_masked_dense(bucketed)


def test_blocks_that_share_no_leaf_are_not_multiplied():
    n, count, block = 256, 16, 16
    leaf = torch.arange(n).flip(0).remainder(count).expand(BATCH, HEADS, n)
    balanced = buckets.plan(leaf, leaf, count, block)
    assert len(balanced.query_block) == BATCH * HEADS * n // block  # one block a leaf: the least possible
    one_leaf = torch.zeros_like(leaf)
    assert len(buckets.plan(one_leaf, one_leaf, count, block).query_block) == BATCH * HEADS * (n // block) ** 2
    assert len(buckets.plan(one_leaf, one_leaf + 1, count, block).query_block) == 0


def drops_the_last_pair(q, k, v, leaf_q, leaf_k, count, block, causal):
    plan = buckets.plan(leaf_q, leaf_k, count, block)
    if len(plan.query_block) > 1:
        plan = buckets.Plan(**{**plan.__dict__, "query_block": plan.query_block[:-1], "key_block": plan.key_block[:-1]})
    return buckets.attention(q, k, v, plan, causal)


def stays_in_leaf_order(q, k, v, leaf_q, leaf_k, count, block, causal):
    plan = buckets.plan(leaf_q, leaf_k, count, block)
    order = plan.order_q.view(*leaf_q.shape)[..., None].expand(v.shape)
    return buckets.attention(q, k, v, plan, causal).gather(2, order)


@pytest.mark.parametrize(
    "broken",
    [
        drops_the_last_pair,
        stays_in_leaf_order,
        lambda q, k, v, a, b, count, block, causal: bucketed(q, k, v, a, a, count, block, causal),  # keys where the queries are
        lambda q, k, v, a, b, count, block, causal: bucketed(q, k, v, a, b, count, block, False),
        lambda q, k, v, a, b, count, block, causal: bucketed(q, k, v, a * 0, b * 0, 1, block, causal),  # all leaves are one
    ],
)
def test_the_oracle_rejects_what_is_broken(broken):
    with pytest.raises(AssertionError):
        equals_masked_dense(broken)


# -- the methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_a_tree_with_one_leaf_is_full_attention(causal):
    q, k, v = inputs()
    logits = torch.from_numpy(q @ k.swapaxes(2, 3) / DIM**0.5)
    if causal:
        logits = logits.masked_fill(~torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(), float("-inf"))
    expected = (torch.softmax(logits, -1) @ torch.from_numpy(v)).numpy()
    np.testing.assert_allclose(answer(built(causal=causal, height=0), q, k, v), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(answer(built(causal=causal, height=2), q, k, v), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_tf_is_attention_inside_the_leaves(causal):
    method = built(causal=causal)
    q, k, v = (torch.from_numpy(x) for x in inputs())
    expected = dense(q, k, v, method.leaves(q), method.leaves(k), causal)
    torch.testing.assert_close(method.attend(q, k, v), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_tc_is_the_mix_of_means_along_the_path(causal):
    method = built(TreeformerTc, causal=causal)
    assert torch.allclose(method.mix.sum(-1), torch.ones(HEADS)) and (method.mix >= 0).all()
    q, k, v = inputs()
    leaf_q, leaf_k = (method.leaves(torch.from_numpy(x)).numpy() for x in (q, k))
    out = answer(method, q, k, v)
    for b, h, i in np.ndindex(BATCH, HEADS, LENGTH):
        expected, mean = 0.0, None
        for level in range(method.height + 1):
            down = method.height - level
            seen = (leaf_k[b, h] >> down == leaf_q[b, h, i] >> down) & ((np.arange(LENGTH) <= i) | (not causal))
            mean = v[b, h, seen].mean(0) if seen.any() else mean
            expected = expected + float(method.mix[h, level]) * mean
        np.testing.assert_allclose(out[b, h, i], expected, rtol=1e-4, atol=1e-5)


def test_tc_with_one_leaf_is_the_mean_of_the_values():
    q, k, v = inputs()
    mean = np.broadcast_to(v.mean(2, keepdims=True), v.shape)
    np.testing.assert_allclose(answer(built(TreeformerTc, height=0), q, k, v), mean, rtol=1e-5, atol=1e-6)


def test_the_mix_is_the_best_convex_one():
    rng = np.random.default_rng(0)
    columns, best = rng.standard_normal((200, 3)), np.array([0.7, 0.3, 0.0])
    np.testing.assert_allclose(convex(columns.T @ columns, columns.T @ columns @ best, 5000), best, atol=1e-2)


@pytest.mark.parametrize("cls", [TreeformerTf, TreeformerTc])
def test_causal_rows_do_not_see_later_tokens(cls):
    q, k, v = inputs()
    method = built(cls, True)
    before = answer(method, q, k, v)
    for t in (0, 11, LENGTH - 2):
        changed = [x.copy() for x in (q, k, v)]
        for i, x in enumerate(changed):
            x[:, :, t + 1 :] = 5 * inputs(LENGTH - t - 1, seed=i + 20)[i]
        np.testing.assert_allclose(answer(method, *changed)[:, :, : t + 1], before[:, :, : t + 1], rtol=1e-4, atol=1e-5)
        open_one = built(cls, False)
        assert not np.allclose(answer(open_one, *changed)[:, :, : t + 1], answer(open_one, q, k, v)[:, :, : t + 1], atol=1e-3)


@pytest.mark.parametrize("cls", [TreeformerTf, TreeformerTc])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_outputs_are_finite_and_in_the_hull(cls, causal, dtype):
    method = built(cls, causal, dtype)
    for scale in (0.0, 1.0, 300.0):
        q, k, v = (torch.from_numpy(x).to(getattr(torch, dtype)) for x in inputs(scale=scale))
        out = method.attend(q, k, v)
        assert out.dtype == v.dtype and torch.isfinite(out).all()
        assert (out <= v.amax(2, keepdim=True) + 0.05).all() and (out >= v.amin(2, keepdim=True) - 0.05).all()


def test_gradients_flow_through_values_queries_and_keys():
    method = built()
    x = [torch.from_numpy(a).requires_grad_() for a in inputs()]
    method.attend(*x).square().sum().backward()
    assert all(torch.isfinite(a.grad).all() and a.grad.abs().sum() > 0 for a in x)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cls", [TreeformerTf, TreeformerTc])
def test_the_formula_is_what_the_counter_sees(cls, causal):
    method = built(cls, causal)
    for n in (1, 37, 200):
        x = [torch.from_numpy(a) for a in inputs(n)]
        method.run._counting, method.run._counts = True, {}
        method.attend(*x)
        method.run._counting = False
        formula = method.flops("serve", Case("n", {"length": n}), method.run._counts)
        assert formula.executed == pytest.approx(count_torch(method.attend, *x).executed, rel=1e-3)
        assert formula.useful <= formula.executed
    if cls is TreeformerTf:
        leaf_q, leaf_k = (method.leaves(a) for a in x[:2])
        assert method.run._counts["useful"] == (leaf_q[..., :, None] == leaf_k[..., None, :]).sum()
        assert formula.executed < 0.8 * formula.dense


@pytest.mark.parametrize("cls", [TreeformerTf, TreeformerTc])
@pytest.mark.parametrize("data", ["gaussian(heads=2)", "peaked(heads=2, causal=True)"])
def test_runs_at_smoke_size(cls, data):
    out = exercise(AttentionForward, cls, data=data, cases=("n-64", "n-256"), seconds=0.001, height=3)
    for n in (64, 256):
        assert out[f"n-{n}", ()]["serve.flops"]["how"] == "formula, counter agrees"
        assert 0 < out[f"n-{n}", ()]["quality.relative-error"]["value"] < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": -1}, "height=-1"),
        ({"height": 11}, "height=11"),
        ({"block": 0}, "block=0"),
        ({"predicates": "x"}, "no predicates 'x'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        built(**settings)


def test_too_many_pairs_are_refused_with_a_reason():
    method = built()
    method.room = 100
    with pytest.raises(NotImplementedError, match=r"pairs of blocks .* of 37 tokens"):
        answer(method, *inputs())


# -- the fused form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [0, 3])
def test_the_fused_table_is_the_mix_of_means_along_the_path(height):
    """From sums and numbers of the leaves; leaf 1 and its sibling have no keys."""
    method = TreeformerTcFused(height=height)
    method.run = Run(backend=get("torch"), dtype="float32")
    method.build(Given(HEADS, DIM, BATCH, False, inputs(200, seed=9)), method.run)
    v = torch.from_numpy(inputs(50)[2])
    leaf = random_leaves(50, 2**height)
    leaf[leaf < 2] = 2**height - 1
    total = torch.zeros(BATCH, HEADS, 2**height, DIM).scatter_add(2, leaf[..., None].expand(v.shape), v)
    number = buckets.counts(leaf, 2**height).float()[..., None]
    means = buckets.node_means(leaf, v, height)
    expected = sum(method.mix[:, i, None, None] * mean for i, mean in enumerate(means))
    torch.testing.assert_close(method.table(total, number), expected)


@pytest.mark.parametrize("cls", [TreeformerTfFused, TreeformerTcFused])
def test_the_fused_form_says_where_it_cannot_run_and_leaves_gradients_to_pytorch(cls):
    method = cls(height=3)
    method.run = Run(backend=get("torch"), dtype="float32")
    given = Given(HEADS, DIM, BATCH, True, inputs(200, seed=9))
    assert "CUDA" in method.skip(given)
    method.build(given, method.run)
    q, k, v = (torch.from_numpy(x) for x in inputs())
    plain = built(TreeformerTf if cls is TreeformerTfFused else TreeformerTc, causal=True)
    for mine, other in zip(method.gradients(q, k, v, torch.ones_like(v)), plain.gradients(q, k, v, torch.ones_like(v))):
        torch.testing.assert_close(mine, other)
