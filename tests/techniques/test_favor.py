"""FAVOR+ and FAVOR++: attention by features is what it says, trains, keeps its range, and runs.

Each oracle rejects a variant that is broken in the way it is about; several of those circulate as the real thing.
"""

import math

import numpy as np
import pytest
import torch
from effbench_implementations.attention import features, linear
from effbench_implementations.attention.favor import FavorPlus, FavorPlusPlus
from effbench_implementations.attention.task import AttentionForward, Given

from effbench import Case, Run
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

BATCH, HEADS, LENGTH, DIM = 2, 3, 37, 8
RNG = np.random.default_rng


def normal(*shape, seed=0):
    return RNG(seed).standard_normal(shape, dtype=np.float32)


def inputs(length=LENGTH, scale=1.0, seed=0):
    return tuple(f * normal(BATCH, HEADS, length, DIM, seed=3 * seed + i) for i, f in enumerate((scale, scale, 1.0)))


def built(cls, causal=False, *, dtype="float32", **settings):
    method = cls(**{"features": 32, "chunk": 8, **settings})
    method.run = Run(backend=get("torch"), dtype=dtype)
    given = Given(HEADS, DIM, BATCH, causal, inputs(seed=9))
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


def answer(method, *arrays):
    return method.attend(*(torch.from_numpy(np.asarray(x)) for x in arrays)).numpy()


def explicit(method, q, k, v):
    """phi phi^T, masked, normalised by row, in float64, from the definition and the method's w and A."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    a = method.coefficient(torch.from_numpy(q), torch.from_numpy(k))
    a = a.double().numpy()[..., None, None] if torch.is_tensor(a) else a
    w = method.w.double().numpy()

    def maps(x, a):
        x = x * DIM**-0.25
        return np.exp(a * (w**2).sum(-1)[:, None] + np.sqrt(1 - 4 * a) * x @ w.swapaxes(-1, -2) - (x**2).sum(-1, keepdims=True) / 2)

    weights = maps(q, a) @ maps(k, a).swapaxes(-1, -2)
    weights = np.tril(weights) if method.causal else weights
    with np.errstate(invalid="ignore"):  # underflows for keys that are too long
        return weights @ v / weights.sum(-1, keepdims=True)


def is_the_quadratic_form(method):
    for length in (1, 7, 8, 9, LENGTH):
        x = inputs(length)
        np.testing.assert_allclose(answer(method, *x), explicit(method, *x), rtol=2e-4, atol=2e-5)


def does_not_see_the_future(method):
    q, k, v = inputs()
    before = answer(method, q, k, v)
    for t in (0, 11, LENGTH - 2):
        changed = [x.copy() for x in (q, k, v)]
        for i, x in enumerate(changed):
            x[:, :, t + 1 :] = 10 * normal(BATCH, HEADS, LENGTH - t - 1, DIM, seed=50 + i)
        np.testing.assert_allclose(answer(method, *changed)[:, :, : t + 1], before[:, :, : t + 1], rtol=1e-4, atol=1e-5)


def stays_in_the_hull(method):
    q, k, v = inputs()
    out = answer(method, q, k, v)
    low, high = (np.minimum, np.maximum)
    if method.causal:
        assert (out >= low.accumulate(v, 2) - 1e-5).all() and (out <= high.accumulate(v, 2) + 1e-5).all()
    assert (out >= v.min(2, keepdims=True) - 1e-5).all() and (out <= v.max(2, keepdims=True) + 1e-5).all()
    np.testing.assert_allclose(answer(method, q, k, np.ones_like(v)), 1.0, rtol=1e-5)


@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_normalised_product_of_features(cls, causal):
    method = built(cls, causal)
    for oracle in (is_the_quadratic_form, stays_in_the_hull, *([does_not_see_the_future] if causal else [])):
        oracle(method)
    q, k, v = (x[:, :, :1] for x in inputs())
    np.testing.assert_allclose(answer(method, q, k, v), v, rtol=1e-5, atol=1e-6)


def test_plus_plus_takes_the_coefficient_of_each_head_and_sequence():
    method = built(FavorPlusPlus)
    q, k, _ = (torch.from_numpy(x) for x in inputs())
    q[0, 1] *= 4
    a = method.coefficient(q, k)
    assert a.shape == (BATCH, HEADS) and (a < 0).all() and a[0, 1] < a[0, 0] - 0.05
    assert built(FavorPlusPlus, True).coefficient(q, k).shape == (1, HEADS)


class PerKeyMaximum(FavorPlus):
    """Each key is divided by its own largest feature, which does not cancel."""

    def by_torch(self, q, k, v):
        hq, hk = (features.exponents(x, self.w, 0.0, key=key) for x, key in ((q, False), (k, True)))
        return linear.bidirectional(hq, hk - hk.amax(-1, keepdim=True), v)


class NoKeyLength(FavorPlus):
    def by_torch(self, q, k, v):
        return linear.bidirectional(*(features.exponents(x, self.w, 0.0, key=False) for x in (q, k)), v)


class CoefficientOnOneSide(FavorPlusPlus):
    def by_torch(self, q, k, v):
        a = self.coefficient(q, k)
        return linear.bidirectional(features.exponents(q, self.w, 0.0, key=False), features.exponents(k, self.w, a, key=True), v)


class StatisticsOfTheCall(FavorPlusPlus):
    """Causal, but A comes from all tokens of the call."""

    def coefficient(self, q, k):
        return features.optimal(features.square_of_sums(q, k), self.head_dim)


class ForgetsChunks(FavorPlus):
    def by_torch(self, q, k, v):
        hq, hk = (features.exponents(x, self.w, 0.0, key=key) for x, key in ((q, False), (k, True)))
        parts = [linear.causal(*(x[:, :, i : i + 8] for x in (hq, hk, v)), 8) for i in range(0, q.shape[2], 8)]
        return torch.cat(parts, 2)


class Strictly(FavorPlus):
    """A mask one off: the state of a chunk already holds the chunk itself."""

    def by_torch(self, q, k, v):
        return super().by_torch(q, k.roll(-1, 2), v.roll(-1, 2))


@pytest.mark.parametrize(
    ("broken", "causal", "oracle"),
    [
        (PerKeyMaximum, False, is_the_quadratic_form),
        (NoKeyLength, False, is_the_quadratic_form),
        (CoefficientOnOneSide, False, is_the_quadratic_form),
        (StatisticsOfTheCall, True, does_not_see_the_future),
        (ForgetsChunks, True, is_the_quadratic_form),
        (Strictly, True, does_not_see_the_future),
        (FavorPlus, False, does_not_see_the_future),
    ],
)
def test_the_oracles_reject_what_is_broken(broken, causal, oracle):
    with pytest.raises(AssertionError):
        oracle(built(broken, causal))


def test_shifts_of_the_exponents_cancel():
    hq, hk, v = (torch.randn(1, 2, 20, 6, dtype=torch.float64) for _ in range(3))
    for form in (linear.bidirectional, lambda *x: linear.causal(*x, 4)):
        expected = form(hq, hk, v)
        torch.testing.assert_close(form(hq + torch.randn(1, 2, 20, 1), hk + 300, v), expected, rtol=1e-9, atol=1e-9)
        assert not torch.allclose(form(hq, hk + torch.randn(1, 2, 20, 1), v), expected, atol=1e-3)


@pytest.mark.parametrize("chunk", [1, 3, 8, 20, 64])
def test_chunks_of_any_size_give_one_answer(chunk):
    hq, hk, v = (5 * torch.randn(2, 2, 20, 6, dtype=torch.float64) for _ in range(3))
    weights = torch.exp(hq[..., :, None, :] + hk[..., None, :, :]).sum(-1).tril()
    torch.testing.assert_close(linear.causal(hq, hk, v, chunk), weights @ v / weights.sum(-1, keepdim=True))


def test_gradients_are_those_of_the_quadratic_form():
    hq, hk, v = (torch.randn(1, 1, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(linear.bidirectional, (hq, hk, v))
    assert torch.autograd.gradcheck(lambda *x: linear.causal(*x, 3), (hq, hk, v))


@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
@pytest.mark.parametrize("causal", [False, True])
def test_can_be_trained_through(cls, causal):
    method = built(cls, causal)
    x = [torch.from_numpy(a).requires_grad_() for a in inputs()]
    method.attend(*x).square().sum().backward()
    assert all(torch.isfinite(a.grad).all() and a.grad.abs().sum() > 0 for a in x)


# -- the authors' eps ---------------------------------------------------------------------------------------------------


def authors(x, w, a, eps, query):
    """The map of the authors' code for one head, [n, M]: eps inside the factor D / sqrt(M), the maximum of the projection alone."""
    d, m = x.shape[1], len(w)
    x = x * d**-0.25
    b, factor = math.sqrt(1 - 4 * a), (1 - 4 * a) ** (d / 4)
    dash = x @ w.T
    top = b * (dash.max(1, keepdims=True) if query else dash.max())
    inner = np.exp(b * dash - top - (x**2).sum(1, keepdims=True) / 2 + a * (w**2).sum(1)) + eps
    return factor / math.sqrt(m) * inner


@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
def test_eps_sits_where_the_authors_put_it(cls):
    eps = 1e-2
    method = built(cls, eps=eps)
    q, k, v = inputs()
    found = answer(method, q, k, v)
    plain = answer(built(cls), q, k, v)
    for b in range(BATCH):
        for h in range(HEADS):
            x, y, values = (np.asarray(t[b, h], np.float64) for t in (q, k, v))
            a = method.coefficient(*(torch.from_numpy(t) for t in (q, k)))
            a = float(a[b, h]) if torch.is_tensor(a) else a
            w = method.w[h].double().numpy()
            weights = authors(x, w, a, eps, True) @ authors(y, w, a, eps, False).T
            np.testing.assert_allclose(found[b, h], weights @ values / weights.sum(1, keepdims=True), rtol=1e-3, atol=1e-4)
    assert np.abs(found - plain).max() > 1e-2  # it biases
    tiny = answer(built(cls, eps=1e-12), q, k, v)
    np.testing.assert_allclose(tiny, plain, rtol=1e-3, atol=1e-4)


# -- range --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_no_length_of_vectors_gives_nan(cls, causal, dtype):
    method = built(cls, causal, dtype=dtype)
    kind = getattr(torch, dtype)
    for scale in (0.0, 1e-4, 1.0, 30.0, 200.0):
        q, k, v = (torch.from_numpy(x).to(kind) for x in inputs(scale=scale))
        for out in (method.attend(q, k, v), method.attend(q, torch.zeros_like(k), v), method.attend(torch.zeros_like(q), k, v)):
            assert out.dtype == kind and torch.isfinite(out).all()
            assert (out.float() <= v.float().amax(2, keepdim=True) + 0.05).all()
    # The exponentials themselves do overflow: this is what the maxima are for.
    assert torch.isinf(torch.exp(features.exponents(200 * q.float(), method.w, 0.0, key=False))).any()


def test_one_long_key_among_short_ones_harms_no_row():
    method = built(FavorPlus, True)
    q, k, v = inputs()
    k[:, :, 0] *= 30
    out = answer(method, q, k, v)
    np.testing.assert_allclose(out[:, :, 0], v[:, :, 0], rtol=1e-5)
    np.testing.assert_allclose(out[:, :, 1:], explicit(method, q, k, v)[:, :, 1:], rtol=1e-3, atol=1e-3)


def test_more_features_come_closer_to_softmax():
    errors = {}
    for count in (16, 256):
        out = exercise(
            AttentionForward, FavorPlusPlus, data="gaussian(heads=8, head_dim=16, scale=0.7)", cases=("n-128",), features=count
        )
        errors[count] = out["n-128", ()]["quality.relative-error"]["value"]
    assert errors[256] < 0.6 * errors[16]


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
@pytest.mark.parametrize(
    ("data", "eps"), [("gaussian(heads=2)", 0.0), ("peaked(heads=2, causal=True)", 0.0), ("gaussian(heads=2)", 1e-6)]
)
def test_runs_at_smoke_size_and_its_work_is_counted_right(cls, data, eps):
    out = exercise(AttentionForward, cls, data=data, cases=("n-64", "n-256"), seconds=0.001, eps=eps)
    for length in (64, 256):
        readings = out[f"n-{length}", ()]
        assert readings["serve.flops"]["how"] == "formula, counter agrees"
        assert 0 < readings["quality.relative-error"]["value"] < 20


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cls", [FavorPlus, FavorPlusPlus])
def test_the_formula_is_what_the_counter_sees(cls, causal):
    method = built(cls, causal)
    for length in (1, 16, 37, 90):
        x = [torch.from_numpy(a) for a in inputs(length)]
        formula = method.flops("serve", Case("n", {"length": length}), {})
        assert formula.executed == pytest.approx(count_torch(method.attend, *x).executed, rel=1e-3)
        assert formula.useful <= formula.executed


def test_seeds_draw_other_features():
    first, again, other = (exercise(AttentionForward, FavorPlus, cases=("n-64",), seed=seed)["n-64", ()] for seed in (0, 0, 1))
    values = [r["quality.relative-error"]["value"] for r in (first, again, other)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": 0}, "features=0"),
        ({"chunk": 0}, "chunk=0"),
        ({"eps": -1.0}, "eps=-1.0"),
        ({"kernel": "cuda"}, "no kernel 'cuda'"),
        ({"statistics": "none"}, "no statistics 'none'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        built(FavorPlusPlus, **settings)


def test_what_cannot_run_here_is_skipped_with_a_reason():
    for method, given, reason in (
        (FavorPlus(kernel="triton"), Given(HEADS, DIM, BATCH, False, ()), "need a CUDA device"),
        (FavorPlus(kernel="triton", eps=1e-6), Given(HEADS, DIM, BATCH, False, ()), "no eps"),
        (FavorPlusPlus(statistics="call"), Given(HEADS, DIM, BATCH, True, ()), "future tokens"),
    ):
        method.run = Run()
        assert reason in method.skip(given)


def test_the_registry_reads_both():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "attention" in problem]
    assert {"favor+", "favor++"} <= set(found.methods_of("attention-forward"))


@pytest.mark.slow
def test_compiled_gives_the_same():
    x = inputs()
    for cls in (FavorPlus, FavorPlusPlus):
        np.testing.assert_allclose(answer(built(cls, compiled=True), *x), answer(built(cls), *x), rtol=1e-4, atol=1e-5)
