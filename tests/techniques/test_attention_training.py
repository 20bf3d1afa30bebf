"""Forward and backward: gradients are those of float64, broken ones are noticed, and the work is counted right."""

import numpy as np
import pytest
import torch
from effbench_implementations.attention import reference, training
from effbench_implementations.attention.differentiable import DifferentiableAttention
from effbench_implementations.attention.favor import FavorPlus, FavorPlusPlus
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.sdpa import Sdpa
from effbench_implementations.attention.task import Given
from effbench_implementations.attention.toeplitz import ToeplitzLinear
from effbench_implementations.attention.training import AttentionTraining
from effbench_implementations.attention.treeformer import TreeformerTc, TreeformerTf
from effbench_implementations.attention.uniform import Uniform

from effbench import Case, Data, Run, Wrong
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

HEADS, DIM = 2, 8
ARMS = {
    "naive": (Naive, {}),
    "sdpa": (Sdpa, {}),
    "sdpa-math": (Sdpa, {"kernel": "math"}),
    "favor+": (FavorPlus, {"features": 16, "chunk": 32}),
    "favor+-eps": (FavorPlus, {"features": 16, "eps": 1e-6}),
    "favor++": (FavorPlusPlus, {"features": 16}),
    "treeformer-tf": (TreeformerTf, {"height": 2, "block": 16}),
    "treeformer-tc": (TreeformerTc, {"height": 2}),
    "toeplitz-linear": (ToeplitzLinear, {"features": 4}),
    "uniform": (Uniform, {}),
}


def normal(length, seed=0, count=4):
    return [np.random.default_rng((seed, i)).standard_normal((1, HEADS, length, DIM), dtype=np.float32) for i in range(count)]


def built(cls, causal=False, **settings):
    method = cls(**settings)
    method.run = Run(backend=get("torch"))
    given = Given(HEADS, DIM, 1, causal, tuple(normal(64, seed=9, count=3)))
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


# -- the reference ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_the_reference_is_the_derivative_of_the_definition(causal, monkeypatch):
    monkeypatch.setattr(reference, "ENTRIES", 40)  # several blocks
    q, k, v, g = (torch.from_numpy(x[0, 0]).double().requires_grad_(i < 3) for i, x in enumerate(normal(13)))
    for rows in (np.arange(13), np.array([0, 4, 12])):
        logits = q @ k.T / DIM**0.5
        if causal:
            logits = logits + torch.full((13, 13), float("-inf"), dtype=torch.float64).triu(1)
        out = torch.softmax(logits, -1) @ v
        expected = torch.autograd.grad((out * g)[rows].sum(), (q, k, v))
        found = reference.exact_gradients(*(x.detach().numpy() for x in (q, k, v, g)), rows, causal)
        for mine, truth in zip(found, (out[rows], expected[0][rows], *expected[1:])):
            np.testing.assert_allclose(mine, truth.detach().numpy(), rtol=1e-9, atol=1e-12)


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs(arm, causal):
    cls, settings = ARMS[arm]
    out = exercise(AttentionTraining, cls, data=f"gaussian(heads=2, head_dim=8, causal={causal})", seconds=0.001, **settings)
    for case in ("n-64", "n-128"):
        readings = out[case, ()]
        cosines = [readings[f"quality.cosine-{part}"]["value"] for part in "qkv"]
        if cls.exact:
            assert readings["quality.relative-error"]["value"] < 5e-6 and min(cosines) > 1 - 1e-9
        elif cls in (TreeformerTc, Uniform):
            assert (
                cosines[:2] == [0.0, 0.0] and cosines[2] > 0.3
            )  # leaves are chosen, and a choice has no gradient; no scores at all
        else:
            assert min(cosines) > 0.05


class ForgetsTheSum(Naive):
    """Takes the normaliser for a constant."""

    def compute(self, q, k, v):
        weights = torch.exp((q * q.shape[-1] ** -0.5) @ k.mT)
        weights = weights.tril() if self.causal else weights
        return weights @ v / weights.sum(-1, keepdim=True).detach()


class ForgetsTheScale(Naive):
    def gradients(self, q, k, v, g):
        out, dq, dk, dv = super().gradients(q, k, v, g)
        return out, dq * self.head_dim**0.5, dk, dv


class KeysStandStill(Naive):
    def compute(self, q, k, v):
        return super().compute(q, k.detach(), v)


class StraightThrough(Naive):
    """Right output, gradients of another attention."""

    def compute(self, q, k, v):
        wrong = v.mean(2, keepdim=True).expand_as(v)
        return wrong + (super().compute(q, k, v) - wrong).detach() + 0 * (q + k)


class SmallerValues(Naive):
    def gradients(self, q, k, v, g):
        out, dq, dk, dv = super().gradients(q, k, v, g)
        return out, dq, dk, dv * 0.999


BROKEN = [ForgetsTheSum, ForgetsTheScale, KeysStandStill, StraightThrough, SmallerValues]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_gradient_is_wrong(broken, causal):
    with pytest.raises(Wrong, match="relative error"):
        exercise(AttentionTraining, broken, data=f"gaussian(heads=2, head_dim=8, causal={causal})", cases=("n-64",), seconds=0.001)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_gradient_is_noticed_on_rows_of_long_inputs(broken, monkeypatch):
    monkeypatch.setattr(training, "EVERY_ROW", 32)
    monkeypatch.setattr(training, "SOME_ROWS", 16)
    ask = {"data": "gaussian(heads=2, head_dim=8)", "cases": ("n-64",), "seconds": 0.001}
    good = exercise(AttentionTraining, Naive, **ask)
    assert good["n-64", ()]["quality.relative-error"]["value"] < 5e-6
    with pytest.raises(Wrong, match="relative error"):
        exercise(AttentionTraining, broken, **ask)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:3], "3 arrays"),
        (lambda x: (*x[:3], x[3][:, :, 1:]), "dv has the shape"),
        (lambda x: (x[0], x[1].astype(np.float64), *x[2:]), "dq is float64"),
        (lambda x: (x[0], x[1], x[2] * np.float32(np.nan), x[3]), "dk holds NaN"),
    ],
)
def test_score_finds_a_broken_contract(spoil, message):
    task, data = AttentionTraining(), Data("gaussian", {**AttentionTraining.data[0].args, "heads": 2, "head_dim": 8})
    case, method = AttentionTraining.cases[0], built(Naive)
    hidden, given = task.hidden(data, "smoke", 0, {}), task.given(data, "smoke", 0, {})
    outputs = [method.run.numpy(task.call(method, batch, case)) for batch in task.batches(case, hidden, method.run)]
    assert task.score(method, given, hidden, case, outputs)["relative-error"].max() < 5e-6
    with pytest.raises(Wrong, match=message):
        task.score(method, given, hidden, case, [outputs[0], spoil(outputs[1]), outputs[2]])


def test_evaluate_knows_right_from_wrong():
    given = Given(HEADS, DIM, 1, False, tuple(normal(32, seed=9, count=3)))
    assert AttentionTraining().evaluate(built(Naive), given)["relative-error"] < 5e-6
    assert AttentionTraining().evaluate(built(SmallerValues), given)["relative-error"] > 5e-4


def test_bad_input_is_refused_and_the_room_is_asked_for_twice():
    method = built(Naive)
    q, k, v, g = (torch.from_numpy(x) for x in normal(16))
    with pytest.raises(ValueError, match="gradient of the output"):
        method.gradients(q, k, v, g[:, :, :-1])
    method.room = 2 * HEADS * 16 * 16 * 4
    method.attend(q, k, v)
    with pytest.raises(NotImplementedError, match="with its gradients"):
        method.gradients(q, k, v, g)
    assert not method.training


def test_inputs_are_left_alone_and_no_answer_is_stale():
    method = built(Naive)
    first, second = ([torch.from_numpy(x) for x in normal(16, seed)] for seed in (0, 1))
    kept = [x.clone() for x in first]
    answers = [method.gradients(*x) for x in (first, second, first)]
    assert all(torch.equal(a, b) for a, b in zip(kept, first))
    assert all(torch.equal(a, b) and not torch.allclose(a, c) for a, b, c in zip(answers[0], answers[2], answers[1]))
    assert not any(x.requires_grad for x in (*first, *answers[0]))


# -- work ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("arm", ARMS)
def test_the_formula_is_what_the_counter_sees(arm, causal):
    cls, settings = ARMS[arm]
    method = built(cls, causal, **settings)
    for length in (32, 64, 96):
        x = [torch.from_numpy(a) for a in normal(length)]
        method.run._counting, method.run._counts = True, {}
        method.gradients(*x)
        method.run._counting = False
        forward, both = (
            method.flops("serve", Case("n", {"length": length, **more}), method.run._counts) for more in ({}, {"backward": True})
        )
        assert both.executed == pytest.approx(count_torch(method.gradients, *x).executed, rel=1e-9)
        assert forward.executed <= both.executed and both.dense > forward.dense
        with torch.no_grad():
            assert forward.executed == pytest.approx(count_torch(method.attend, *x[:3]).executed, rel=1e-9)


def test_one_method_serves_both_tasks_and_the_exact_arms_are_there():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "attention" in problem]
    arms = set(found.methods_of("attention-training"))
    fused = {"treeformer-tf-fused", "treeformer-tc-fused"}  # PyTorch's when there are gradients
    assert arms - fused == {"naive", "sdpa", "favor+", "favor++", "treeformer-tf", "treeformer-tc", "toeplitz-linear", "uniform"}
    assert arms <= set(found.methods_of("attention-forward"))
    assert found.task("attention-training").baselines == ("sdpa", "naive")
    assert issubclass(AttentionTraining.interface, DifferentiableAttention)


def test_lengths_by_size():
    lengths = {size: [c["length"] for c in AttentionTraining.cases if size in c.sizes] for size in ("smoke", "quick", "full")}
    assert lengths["smoke"] == [64, 128] and lengths["quick"] == [256, 512, 1024, 2048]
    assert lengths["full"][-2:] == [16384, 65536] and all(case["backward"] for case in AttentionTraining.cases)
