"""Counted FLOPs of jax calls against counts derived by hand; a loop's body counts once for each step."""

import numpy as np
import pytest

from effbench.measure.flops import count
from effbench.measure.flops_jax import read_cost

jax = pytest.importorskip("jax")
jnp, lax = jax.numpy, jax.lax
rng = np.random.default_rng(0)


def A(*shape):
    return jnp.asarray(rng.standard_normal(shape), dtype=jnp.float32)


def conv(groups=1, stride=1):
    def call(x, w):
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=names, feature_group_count=groups)

    return call


def gradient(call):
    return jax.grad(lambda *args: jnp.sum(call(*args) ** 2), argnums=(0, 1))


M = 2 * 32**3  # one 32x32 product

TABLE = [
    ("product 3x4x5", lambda a, b: a @ b, (A(3, 4), A(4, 5)), 120),
    ("batched by vmap", jax.vmap(lambda a, b: a @ b), (A(6, 3, 4), A(6, 4, 5)), 720),
    ("inside jit", jax.jit(lambda a, b: jax.nn.softmax(a @ b)), (A(32, 32), A(32, 32)), M),
    ("scan of 10", lambda a, b: lax.scan(lambda c, _: (jnp.tanh(c @ b), None), a, None, length=10)[0], (A(32, 32), A(32, 32)), 10 * M),
    ("scan in scan, 3 x 4", lambda a, b: lax.fori_loop(0, 3, lambda i, x: lax.fori_loop(0, 4, lambda j, c: c @ b, x), a), (A(32, 32),) * 2, 12 * M),
    ("lax.map over 5 rows", lambda a: lax.map(lambda row: row @ row, a), (A(5, 7),), 5 * 14),
    ("gradient of sum(tanh(ab)b): ab, and two backward; the last product is dead", jax.grad(lambda a, b: jnp.sum(jnp.tanh(a @ b) @ b)), (A(32, 32),) * 2, 3 * M),
    ("scan differentiated: forward, and two products back a step", gradient(lambda a, b: lax.scan(lambda c, _: (jnp.tanh(c @ b), None), a, None, length=10)[0]), (A(32, 32),) * 2, 30 * M),
    ("conv 8->12, 3x3 on 8x8: 64 outputs of 72 MACs", conv(), (A(2, 8, 8, 8), A(3, 3, 8, 12)), 2 * 2 * 64 * 12 * 72),
    ("grouped conv", conv(4), (A(2, 8, 8, 8), A(3, 3, 2, 12)), 2 * 2 * 64 * 12 * 18),
    ("grouped conv with both gradients", gradient(conv(4)), (A(2, 8, 8, 8), A(3, 3, 2, 12)), 3 * 2 * 2 * 64 * 12 * 18),
    ("strided conv with both gradients: inserted zeros are free", gradient(conv(1, 2)), (A(2, 8, 8, 8), A(3, 3, 8, 12)), 3 * 2 * 2 * 16 * 12 * 72),
    ("attention, causal not halved", lambda q: jax.nn.dot_product_attention(q, q, q, is_causal=True), (A(2, 16, 4, 8),), 4 * 8 * 256 * 8),
    ("real FFT and back", lambda a: jnp.fft.irfft(jnp.fft.rfft(a)), (A(3, 64),), 3 * 5 * 64 * 6),
    ("Cholesky", jnp.linalg.cholesky, (jnp.eye(6),), 72),
    ("solve", jnp.linalg.solve, (A(5, 5), A(5, 2)), 250 / 3 + 100),
    ("complex product", lambda a, b: (a + 1j) @ (b + 1j), (A(3, 4), A(4, 5)), 480),
    ("element-wise only", lambda a: jnp.sort(jnp.exp(a)), (A(3, 4),), 0),
]  # fmt: skip


@pytest.mark.parametrize(("call", "args", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_counts_match_the_derivation(call, args, expected):
    counted = count(call, "jax", *args)
    assert counted.executed == pytest.approx(expected, rel=1e-12)
    assert counted.uncounted == ()


def test_xla_counts_the_body_of_a_scan_once_and_we_do_not():
    """The oracle can fail: XLA's answer would not pass the row above."""
    _, call, args, expected = TABLE[3]
    counted = count(call, "jax", *args)
    assert counted.second["xla"] < expected / 5


def test_a_while_of_unknown_length_is_reported():
    call = lambda a, b: lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ b, a)  # noqa: E731
    counted = count(call, "jax", A(8, 8), A(8, 8))
    assert counted.executed == 0
    assert "while" in counted.uncounted[0]
    assert "1024" in counted.uncounted[0]


def test_branches_that_differ_are_reported():
    counted = count(lambda a, b: lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a), "jax", A(32, 32), A(32, 32))
    assert counted.executed == M
    assert "cond" in counted.uncounted[0]


def test_callbacks_are_reported():
    call = lambda a: jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((3,), jnp.float32), a)  # noqa: E731
    assert count(call, "jax", A(3)).uncounted == ("pure_callback",)


def needs_values(a, b):
    if not float(a.reshape(-1) @ a.reshape(-1)) < 1e9:
        raise ValueError("too large")
    return np.asarray(jax.jit(jax.vmap(lambda row: jnp.tanh(row @ b)))(a))


def test_a_call_that_needs_concrete_values_is_counted_while_it_runs():
    counted = count(needs_values, "jax", A(5, 4), A(4, 3))
    assert counted.executed == 2 * 20 + 2 * 5 * 4 * 3
    assert counted.counter == "jax-eager"
    assert counted.uncounted == ()


def test_eager_counting_sees_the_steps_that_a_while_really_takes():
    def call(a):
        n, out = lax.while_loop(lambda c: c[0] < 7, lambda c: (c[0] + 1, c[1] @ a), (0, a))
        return float(out.sum()), int(n)

    assert count(call, "jax", jnp.eye(8)).executed == 7 * 2 * 8**3


def test_eager_counting_leaves_jax_as_it_was():
    from jax._src import core

    before = core.EvalTrace.process_primitive
    with pytest.raises(ZeroDivisionError):
        count(lambda a: 1 / (0 * int(a.sum())), "jax", A(3))
    assert core.EvalTrace.process_primitive is before
    assert not jax.config.jax_disable_jit


def test_where_jax_cannot_be_watched_a_reason_is_given(monkeypatch):
    from effbench.measure import flops_jax

    def gone(ledger):
        raise AttributeError

    monkeypatch.setattr(flops_jax, "_watching", gone)
    counted = count(lambda a: float(a.sum()), "jax", A(3))
    assert counted.executed is None
    assert "formula only" in counted.reason


def test_static_arguments_keep_their_value():
    assert count(lambda a, n: a @ a if n == 2 else a, "jax", A(4, 4), 2).executed == 128


@pytest.mark.parametrize(
    ("cost", "expected"),
    [({"flops": 5.0}, 5.0), ([{"flops": 5.0}], 5.0), ({"flops": -1.0}, None), ([], None), (None, None), ({}, None)],
)
def test_cost_analysis_comes_in_several_shapes(cost, expected):
    assert read_cost(cost, "flops") == expected


def test_random_numbers_and_sorting_are_known():
    def call(a):
        key = jax.random.key(0)
        noise = jax.random.normal(key, a.shape) + jax.random.permutation(key, a)
        return jnp.median(noise), jnp.searchsorted(a[0], a[1]), lax.top_k(a, 2), a.at[0].add(1.0), jnp.unique(a, size=3)

    assert count(call, "jax", A(4, 8)).uncounted == ()
