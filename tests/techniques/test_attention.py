"""Exact attention: what must hold of every arm, and that the gates notice when it does not.

The oracles take any method. Each is shown to reject a method that is broken in the way it is about.
"""

import numpy as np
import pytest
import torch
from effbench_implementations.attention.chunked import Chunked
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.task import AttentionForward

from effbench import Wrong
from effbench.run.exercise import exercise

from .attention_arms import ARMS, BATCH, DIM, HEADS, LENGTH, answer, built, exact, inputs, normal

# -- oracles ------------------------------------------------------------------------------------------------------------


def equals_float64(method):
    for seed in (0, 1):
        q, k, v = inputs(seed=seed)
        np.testing.assert_allclose(answer(method, q, k, v), exact(q, k, v, method.causal), rtol=1e-5, atol=2e-6)


def ignores_the_order_of_keys(method):
    """Keys and values shuffled together; without a mask only."""
    q, k, v = inputs()
    order = np.random.default_rng(5).permutation(LENGTH)
    np.testing.assert_allclose(answer(method, q, k[:, :, order], v[:, :, order]), answer(method, q, k, v), rtol=1e-5, atol=2e-6)


def stays_in_the_hull(method):
    """Weights are >= 0 and sum to 1: along any direction an output lies between the extremes of the values it may see."""
    q, k, v = inputs()
    directions = normal(DIM, 20, seed=9)
    seen, out = v @ directions, answer(method, q, k, v) @ directions
    if method.causal:
        low, high = np.minimum.accumulate(seen, axis=2), np.maximum.accumulate(seen, axis=2)
    else:
        low, high = seen.min(2, keepdims=True), seen.max(2, keepdims=True)
    assert (out >= low - 1e-5).all() and (out <= high + 1e-5).all()
    np.testing.assert_allclose(answer(method, q, k, np.ones_like(v)), 1.0, rtol=1e-6)


def does_not_see_the_future(method):
    q, k, v = inputs()
    before = answer(method, q, k, v)
    for t in (0, 11, LENGTH - 2):
        changed = [x.copy() for x in (q, k, v)]
        for i, x in enumerate(changed):
            x[:, :, t + 1 :] = 10 * normal(BATCH, HEADS, LENGTH - t - 1, DIM, seed=50 + i)
        after = answer(method, *changed)
        np.testing.assert_allclose(after[:, :, : t + 1], before[:, :, : t + 1], rtol=1e-5, atol=2e-6)
        assert not np.allclose(after[:, :, t + 1 :], before[:, :, t + 1 :], atol=1e-2)


def sees_itself_and_the_past(method):
    """A causal output at t moves with the key and the value of every s <= t: a mask one off in the other direction fails."""
    q, k, v = inputs()
    before = answer(method, q, k, v)
    for s in (0, 11, LENGTH - 1):
        changed = v.copy()
        changed[:, :, s] += 100
        moved = np.abs(answer(method, q, k, changed) - before).min(axis=-1)
        assert (moved[:, :, s:] > 1e-4).all()


def gives_the_value_at_length_one(method):
    q, k, v = (x[:, :, :1] for x in inputs())
    np.testing.assert_allclose(answer(method, q, k, v), v, rtol=1e-6, atol=1e-7)


def survives_large_logits(method):
    """The same vector added to all keys shifts a query's logits together and changes nothing, even at 300 and more."""
    q, k, v = inputs()
    q[..., 0] = 8 * np.abs(q[..., 0]) + 8
    shift = np.zeros(DIM, dtype=np.float32)
    shift[0] = 128.0
    k = np.round(k * 64) / 64  # the shift is then exact in float32
    for sign in (1, -1):
        out = answer(method, q, k + sign * shift, v)
        assert np.isfinite(out).all()
        np.testing.assert_allclose(out, exact(q, k, v, method.causal), rtol=2e-3, atol=2e-3)
    peaked = answer(method, 1000 * q, k, v)
    np.testing.assert_allclose(peaked, exact(1000 * q, k, v, method.causal), rtol=2e-2, atol=2e-2)


def answers_what_was_asked(method):
    """Two inputs in turn, the first again: no answer comes from an earlier call."""
    first, second = inputs(seed=0), inputs(seed=1)
    out = [answer(method, *x) for x in (first, second, first)]
    np.testing.assert_array_equal(out[0], out[2])
    assert np.abs(out[0] - out[1]).max() > 0.1


def leaves_its_input_alone(method):
    given = [method.run.put(x) for x in inputs()]
    method.attend(*given)
    for x, y in zip(given, inputs()):
        np.testing.assert_array_equal(method.run.numpy(x), y)


EITHER = [
    equals_float64, stays_in_the_hull, gives_the_value_at_length_one, survives_large_logits, answers_what_was_asked,
    leaves_its_input_alone,
]  # fmt: skip


@pytest.mark.parametrize("arm", ARMS)
def test_arms_without_a_mask(arm):
    cls, settings = ARMS[arm]
    method = built(cls, **settings)
    for oracle in (*EITHER, ignores_the_order_of_keys):
        oracle(method)


@pytest.mark.parametrize("arm", ARMS)
def test_causal_arms(arm):
    cls, settings = ARMS[arm]
    method = built(cls, causal=True, **settings)
    for oracle in (*EITHER, does_not_see_the_future, sees_itself_and_the_past):
        oracle(method)


# -- broken on purpose --------------------------------------------------------------------------------------------------


class NoScale(Naive):
    def compute(self, q, k, v):
        return super().compute(q * q.shape[-1] ** 0.5, k, v)


class SeesOneAhead(Naive):
    def future(self, n, device):
        return torch.ones(n, n, dtype=torch.bool).triu(2)


class BlindToItself(Naive):
    def future(self, n, device):
        mask = torch.ones(n, n, dtype=torch.bool).triu(0)
        mask[0, 0] = False
        return mask


class Unstable(Naive):
    def compute(self, q, k, v):
        weights = torch.exp(q @ k.mT * q.shape[-1] ** -0.5)
        if self.causal:
            weights = weights.tril()
        return weights @ v / weights.sum(-1, keepdim=True)


class Stale(Naive):
    """Answers with the result of the call before."""

    def compute(self, q, k, v):
        last, self.last = getattr(self, "last", None), super().compute(q, k, v)
        return self.last if last is None or last.shape != q.shape else last


class NotNormalised(Naive):
    def compute(self, q, k, v):
        return super().compute(q, k, v) * 1.001


class FirstBlockOnly(Chunked):
    """Forgets to rescale: the sums of earlier blocks keep their old maximum."""

    def rows(self, q, k, v, start, end):
        return super().rows(q, k, v, start, min(end, self.key_block))


class Scribbles(Naive):
    def compute(self, q, k, v):
        out = super().compute(q, k, v)
        q.mul_(2)
        return out


@pytest.mark.parametrize(
    ("broken", "causal", "oracle", "settings"),
    [
        (NoScale, False, equals_float64, {}),
        (NoScale, True, equals_float64, {}),
        (SeesOneAhead, True, equals_float64, {}),
        (SeesOneAhead, True, does_not_see_the_future, {}),
        (SeesOneAhead, True, stays_in_the_hull, {}),
        (BlindToItself, True, equals_float64, {}),
        (BlindToItself, True, sees_itself_and_the_past, {}),
        (Unstable, False, survives_large_logits, {}),
        (Unstable, True, survives_large_logits, {}),
        (Stale, False, answers_what_was_asked, {}),
        (Stale, False, equals_float64, {}),
        (NotNormalised, False, stays_in_the_hull, {}),
        (NotNormalised, False, gives_the_value_at_length_one, {}),
        (FirstBlockOnly, False, ignores_the_order_of_keys, {"key_block": 8}),
        (FirstBlockOnly, False, equals_float64, {"key_block": 8}),
        (Scribbles, False, leaves_its_input_alone, {}),
        (Naive, False, does_not_see_the_future, {}),
        (Naive, True, ignores_the_order_of_keys, {}),
    ],
)
def test_the_oracles_reject_what_is_broken(broken, causal, oracle, settings):
    with pytest.raises(AssertionError):
        oracle(built(broken, causal, **settings))


@pytest.mark.parametrize(
    ("broken", "data"),
    [
        (NoScale, "gaussian"),
        (NoScale, "peaked"),
        (SeesOneAhead, "gaussian(causal=True)"),
        (BlindToItself, "gaussian(causal=True)"),
        (Unstable, "peaked"),
        (Stale, "gaussian"),
        (NotNormalised, "gaussian"),
        (Scribbles, "gaussian"),
    ],
)
def test_a_run_ends_as_wrong_for_what_is_broken(broken, data):
    with pytest.raises(Wrong):
        exercise(AttentionForward, broken, data=data, cases=("n-64",))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("broken", [NoScale, SeesOneAhead, BlindToItself])
def test_half_precision_does_not_hide_what_is_broken(broken, dtype):
    with pytest.raises(Wrong, match="relative error"):
        exercise(AttentionForward, broken, data="gaussian(causal=True, heads=2)", cases=("n-256",), dtype=dtype)


# -- chunked ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_chunked_equals_naive_whatever_the_blocks(causal):
    q, k, v = inputs()
    expected = answer(built(Naive, causal), q, k, v)
    for rows in (1, 5, 36, 37, 64):
        for columns in (1, 7, 36, 37, 64):
            out = answer(built(Chunked, causal, query_block=rows, key_block=columns), q, k, v)
            np.testing.assert_allclose(out, expected, rtol=1e-5, atol=2e-6, err_msg=f"{rows} x {columns}")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("arm", ["naive", "sdpa", "sdpa-math", "chunked-odd"])
def test_torch_arms_can_be_trained_through(arm, causal):
    cls, settings = ARMS[arm]
    method = built(cls, causal, **settings)
    leaves = [torch.from_numpy(x).double().requires_grad_() for x in inputs(length=13)]
    twins = [x.detach().clone().requires_grad_() for x in leaves]
    weight = torch.from_numpy(normal(BATCH, HEADS, 13, DIM, seed=77)).double()
    (method.attend(*leaves) * weight).sum().backward()
    logits = twins[0] @ twins[1].mT / DIM**0.5
    if causal:
        logits = logits + torch.full((13, 13), float("-inf"), dtype=torch.float64).triu(1)
    (torch.softmax(logits, -1) @ twins[2] * weight).sum().backward()
    for x, y in zip(leaves, twins):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-9, atol=1e-10)


def test_chunked_refuses_empty_blocks():
    with pytest.raises(ValueError, match="key_block=0"):
        built(Chunked, key_block=0)
