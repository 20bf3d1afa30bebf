"""Masked linear attention by FFT: equal to the dense masked product, in one dimension and on a grid, and to its special cases."""

import numpy as np
import pytest
import torch
from effbench_implementations.attention import features, linear
from effbench_implementations.attention.task import AttentionForward, Given
from effbench_implementations.attention.toeplitz import ToeplitzLinear, fast_length, masked

from effbench import Case, Run
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.run.exercise import exercise

BATCH, HEADS, DIM = 2, 3, 8


def random(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype) + 0.05


def parts(n, m=5, d=4, dtype=torch.float64):
    return (
        random(2, 3, n, m, seed=1, dtype=dtype),
        random(2, 3, n, m, seed=2, dtype=dtype),
        random(2, 3, n, d, seed=3, dtype=dtype) - 0.5,
    )


def matrix(f, shape):
    """M_ij = f(i - j) written out, tokens in row-major order of the grid."""
    at = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), -1)
    offset = at[:, None] - at[None] + np.array(shape) - 1
    return f[(..., *torch.from_numpy(offset).unbind(-1))]


def dense(phi_q, phi_k, v, f, shape):
    weights = (phi_q @ phi_k.mT) * matrix(f, shape)
    return weights @ v / weights.sum(-1, keepdim=True)


def equals_dense(form, shape, *, f=None, dtype=torch.float64, tolerance=1e-10):
    n = int(np.prod(shape))
    f = random(*(2 * s - 1 for s in shape), dtype=dtype) if f is None else f.to(dtype)
    x = parts(n, dtype=dtype)
    torch.testing.assert_close(form(*x, f, shape), dense(*x, f, shape), rtol=tolerance, atol=tolerance)


SHAPES = [(1,), (2,), (16,), (37,), (257,), (1, 7), (6, 5), (16, 8), (3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fft_form_is_the_dense_product(shape):
    equals_dense(masked, shape)
    equals_dense(masked, shape, dtype=torch.float32, tolerance=1e-5)
    for group in (1, 2, 5, 9):
        equals_dense(lambda *x, group=group: masked(*x, group), shape)


def test_a_causal_mask_is_the_dense_product_and_prefix_sums():
    n = 257
    f = random(2 * n - 1)
    f[: n - 1] = 0
    equals_dense(masked, (n,), f=f)
    equals_dense(masked, (n,), f=f, dtype=torch.float32, tolerance=1e-4)
    f[n - 1 :] = 1
    phi_q, phi_k, v = parts(n)
    expected = linear.causal(phi_q.log(), phi_k.log(), v, 32)
    torch.testing.assert_close(masked(phi_q, phi_k, v, f, (n,)), expected, rtol=1e-9, atol=1e-9)


def test_no_mask_is_linear_attention():
    phi_q, phi_k, v = parts(50)
    expected = linear.bidirectional(phi_q.log(), phi_k.log(), v)
    torch.testing.assert_close(masked(phi_q, phi_k, v, torch.ones(99, dtype=torch.float64), (50,)), expected)


def test_a_geometric_mask_is_the_decayed_recurrence():
    n, gamma = 40, 0.8
    phi_q, phi_k, v = parts(n)
    f = torch.where(torch.arange(1 - n, n) < 0, 0.0, gamma ** torch.arange(1 - n, n).double())
    state, norm, rows = 0.0, 0.0, []
    for t in range(n):
        state = gamma * state + phi_k[:, :, t, :, None] * v[:, :, t, None, :]
        norm = gamma * norm + phi_k[:, :, t]
        rows.append((phi_q[:, :, t, None] @ state)[:, :, 0] / (phi_q[:, :, t] * norm).sum(-1, keepdim=True))
    torch.testing.assert_close(masked(phi_q, phi_k, v, f, (n,)), torch.stack(rows, 2), rtol=1e-9, atol=1e-9)


def test_exact_features_and_the_exponential_of_a_bias_are_softmax_attention_with_that_bias():
    n, d = 12, 4
    q, k, v = (random(1, 1, n, d, seed=s) for s in range(3))
    bias = random(2 * n - 1, seed=7)
    logits = q @ k.mT
    # The identity as feature map of the queries, the kernel matrix itself as that of the keys: an exact kernel.
    eye = torch.eye(n, dtype=torch.float64)[None, None]
    out = masked(eye, torch.exp(logits).mT.contiguous(), v, torch.exp(bias), (n,))
    torch.testing.assert_close(out, torch.softmax(logits + matrix(bias, (n,)), -1) @ v, rtol=1e-9, atol=1e-9)


def test_a_row_of_a_grid_is_one_dimension_and_products_of_masks_are_products():
    f = random(2 * 9 - 1)
    x = parts(9)
    torch.testing.assert_close(masked(*x, f[None], (1, 9)), masked(*x, f, (9,)))
    g, h = random(2 * 3 - 1, seed=5), random(2 * 4 - 1, seed=6)
    torch.testing.assert_close(
        matrix(g[:, None] * h[None], (3, 4)), torch.kron(matrix(g, (3,)).contiguous(), matrix(h, (4,)).contiguous())
    )


def test_one_mask_for_each_head():
    f = random(3, 2 * 20 - 1)
    x = parts(20)
    torch.testing.assert_close(masked(*x, f, (20,)), dense(*x, f, (20,)))


def test_gradients_are_those_of_the_dense_form():
    shape = (2, 3)
    x = [t[:1, :1].clone().requires_grad_() for t in parts(6, m=2, d=2)]
    f = random(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: masked(*a, shape), (*x, f))
    found = torch.autograd.grad(masked(*x, f, shape).square().sum(), (*x, f))
    for a, b in zip(found, torch.autograd.grad(dense(*x, f, shape).square().sum(), (*x, f))):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def wraps_around(phi_q, phi_k, v, f, shape):
    """What a circulant of length n gives: offsets meet modulo n."""
    at = torch.arange(shape[0])
    weights = (phi_q @ phi_k.mT) * f[shape[0] - 1 :][(at[:, None] - at) % shape[0]]
    return weights @ v / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "broken",
    [
        wraps_around,
        lambda q, k, v, f, shape: masked(q, k, v, f.flip(0), shape),  # j - i
        lambda q, k, v, f, shape: masked(q, k, v, f.roll(1), shape),  # one off
        lambda q, k, v, f, shape: masked(q, k * f[shape[0] - 1 :, None], v, torch.ones_like(f), shape),  # masks the keys
    ],
)
def test_the_oracle_rejects_what_is_broken(broken):
    with pytest.raises(AssertionError):
        equals_dense(broken, (37,), dtype=torch.float32, tolerance=1e-3)


def test_fast_lengths():
    assert [fast_length(n) for n in (1, 3, 7, 13, 131071)] == [2, 4, 8, 16, 131072]
    assert all(fast_length(n) >= n and fast_length(n) % 2 == 0 for n in range(1, 500))


# -- the method ---------------------------------------------------------------------------------------------------------


def inputs(n, scale=1.0):
    return tuple(f * np.random.default_rng(i).standard_normal((BATCH, HEADS, n, DIM), dtype=np.float32) for i, f in enumerate((scale, scale, 1.0)))  # fmt: skip


def built(causal=False, dtype="float32", **settings):
    method = ToeplitzLinear(**{"features": 6, **settings})
    method.run = Run(backend=get("torch"), dtype=dtype)
    given = Given(HEADS, DIM, BATCH, causal, ())
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


@pytest.mark.parametrize(("causal", "columns"), [(False, 0), (True, 0), (False, 7)])
def test_the_method_is_masked_attention_by_features(causal, columns):
    n, slope = 28, 0.1
    method = built(causal, slope=slope, columns=columns)
    q, k, v = (torch.from_numpy(x).double() for x in inputs(n))
    phi_q, phi_k = (features.exponents(x, method.w, 0.0, key=key).exp() for x, key in ((q, False), (k, True)))
    at = np.arange(n)
    if columns:
        distance = np.abs(at[:, None] // columns - at // columns) + np.abs(at[:, None] % columns - at % columns)
    else:
        distance = np.abs(at[:, None] - at)
    weights = (phi_q @ phi_k.mT) * torch.from_numpy(np.exp(-slope * distance))
    weights = weights.tril() if causal else weights
    torch.testing.assert_close(method.attend(q, k, v), weights @ v / weights.sum(-1, keepdim=True), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_no_length_of_vectors_gives_nan(causal, dtype):
    method = built(causal, dtype)
    for scale in (0.0, 1.0, 30.0, 200.0):
        x = [torch.from_numpy(a).to(getattr(torch, dtype)) for a in inputs(50, scale)]
        out = method.attend(*x)
        assert out.dtype == x[0].dtype and torch.isfinite(out).all()


def test_a_grid_that_the_tokens_do_not_fill_is_refused():
    method = built(columns=16)
    with pytest.raises(NotImplementedError, match="30 tokens do not fill rows of 16 columns"):
        method.attend(*(torch.from_numpy(x) for x in inputs(30)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"features": 0}, "features=0"), ({"slope": -1.0}, "slope=-1.0"), ({"columns": 4, "causal": True}, "causal mask needs one")],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        built(**settings)


@pytest.mark.parametrize(("causal", "columns"), [(False, 0), (True, 0), (False, 6)])
def test_the_formula_is_what_the_counter_sees(causal, columns):
    method = built(causal, columns=columns)
    for n in (6, 36, 90):
        x = [torch.from_numpy(a) for a in inputs(n)]
        formula = method.flops("serve", Case("n", {"length": n}), {})
        assert formula.executed == pytest.approx(count_torch(method.attend, *x).executed, rel=0.01)


@pytest.mark.parametrize("data", ["gaussian(heads=2)", "peaked(heads=2, causal=True)"])
def test_runs_at_smoke_size(data):
    out = exercise(AttentionForward, ToeplitzLinear, data=data, cases=("n-64", "n-256"), seconds=0.001, features=8)
    for n in (64, 256):
        assert out[f"n-{n}", ()]["serve.flops"]["how"] == "formula, counter agrees"
        assert 0 < out[f"n-{n}", ()]["quality.relative-error"]["value"] < 20
