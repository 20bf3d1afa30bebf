"""Uniform attention: softmax attention whose queries are zero, so that every visible key weighs the same."""

import numpy as np
import pytest
import torch
from effbench_implementations.attention.favor import FavorPlus
from effbench_implementations.attention.task import AttentionForward, Given
from effbench_implementations.attention.uniform import Uniform

from effbench import Case, Run
from effbench.backends import get
from effbench.run.exercise import exercise

from .attention_arms import answer, built, exact, inputs, normal


def is_attention_without_queries(method):
    q, k, v = inputs()
    np.testing.assert_allclose(answer(method, q, k, v), exact(np.zeros_like(q), k, v, method.causal), rtol=1e-5, atol=1e-6)


class SeesEverything(Uniform):
    def compute(self, q, k, v):
        return v.mean(-2, keepdim=True).expand_as(v).contiguous()


class CountsFromZero(Uniform):
    def compute(self, q, k, v):
        return v.cumsum(-2) / torch.arange(v.shape[-2]).clamp(min=1)[:, None]


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_attention_without_queries(causal):
    is_attention_without_queries(built(Uniform, causal=causal))


@pytest.mark.parametrize("broken", [SeesEverything, CountsFromZero])
def test_the_oracle_notices(broken):
    with pytest.raises(AssertionError):
        is_attention_without_queries(built(broken, causal=True))


@pytest.mark.parametrize("causal", [False, True])
def test_long_sums_in_half_precision(causal):
    method = built(Uniform, causal=causal, heads=1, batch=1)
    v = torch.full((1, 1, 5000, 8), 1.25, dtype=torch.bfloat16)  # a running bfloat16 sum stops growing at 256 times this
    assert torch.equal(method.attend(v, v, v), v)


def test_its_input_stays_and_its_cost_is_no_product():
    method = built(Uniform, causal=True)
    q, k, v = (torch.from_numpy(x) for x in inputs())
    before = v.clone()
    method.attend(q, k, v)
    assert torch.equal(v, before)
    case = Case("n-64", {"length": 64})
    found = method.flops("serve", case, {})
    assert (found.executed, found.useful) == (0.0, 0.0) and found.dense == 4 * 2 * 3 * 8 * 64**2


def test_the_task_runs_it():
    found = exercise(AttentionForward, Uniform, data="gaussian(heads=2)", cases=("n-64",))["n-64", ()]
    assert 0.6 < found["quality.relative-error"]["value"] < 0.9  # of logits with a deviation of 1
    assert found["serve.flops"]["value"] == 0


def test_random_features_of_random_keys_are_worse_than_none():
    """What the arm is for: on standard normal q and k of 64 numbers, 128 random features err by more than the mean of the values."""
    q, k, v = (normal(1, 4, 256, 64, seed=i) for i in range(3))
    truth, error = exact(q, k, v, False), {}
    for cls in (Uniform, FavorPlus):
        method = cls()
        method.run = Run(backend=get(cls.backend))
        method.build(Given(4, 64, 1, False, (q, k, v)), method.run)
        error[cls] = np.linalg.norm(answer(method, q, k, v) - truth) / np.linalg.norm(truth)
    assert error[Uniform] < 0.9 < error[FavorPlus]
