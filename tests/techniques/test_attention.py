"""Exact attention: what must hold of every arm, that the gates notice when it does not, and that the work is counted right.

The oracles take any method. Each is shown to reject a method that is broken in the way it is about.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from effbench_implementations.attention import reference, task
from effbench_implementations.attention.chunked import Chunked
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.naive_jax import NaiveJax
from effbench_implementations.attention.sdpa import Sdpa, blocks
from effbench_implementations.attention.sdpa_jax import SdpaJax
from effbench_implementations.attention.task import Attention, AttentionForward, Given
from torch.utils.flop_counter import FlopCounterMode

from effbench import Case, Data, Run, Wrong
from effbench.backends import get
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

BATCH, HEADS, LENGTH, DIM = 2, 3, 37, 8
ARMS = {
    "naive": (Naive, {}),
    "sdpa": (Sdpa, {}),
    "sdpa-flash": (Sdpa, {"kernel": "flash"}),
    "sdpa-math": (Sdpa, {"kernel": "math"}),
    "chunked": (Chunked, {}),
    "chunked-odd": (Chunked, {"query_block": 5, "key_block": 7}),
    "chunked-wide": (Chunked, {"query_block": 16, "key_block": 11}),
    "naive-jax": (NaiveJax, {}),
    "sdpa-jax": (SdpaJax, {}),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def inputs(length=LENGTH, seed=0):
    return tuple(normal(BATCH, HEADS, length, DIM, seed=3 * seed + i) for i in range(3))


def built(cls, causal=False, *, heads=HEADS, dim=DIM, batch=BATCH, **settings):
    method = cls(**settings)
    method.run = Run(backend=get(cls.backend))
    given = Given(heads, dim, batch, causal, ())
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


def answer(method, q, k, v):
    return method.run.numpy(method.attend(*(method.run.put(x) for x in (q, k, v))))


def exact(q, k, v, causal):
    """Softmax attention in float64, written without any of the code under test."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    logits = np.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(q.shape[-1])
    if causal:
        logits = np.where(np.tri(q.shape[2], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhij,bhjd->bhid", weights / weights.sum(-1, keepdims=True), v)


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


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["gaussian(heads=2)", "peaked(heads=2, causal=True)"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_at_smoke_size(arm, data):
    cls, settings = ARMS[arm]
    # Every length costs jax a compilation, and small blocks a long loop: those two only need one.
    lengths = (64,) if "jax" in arm or "odd" in arm else (64, 128, 256)
    out = exercise(AttentionForward, cls, data=data, cases=tuple(f"n-{n}" for n in lengths), seconds=0.001, **settings)
    for length in lengths:
        readings = out[f"n-{length}", ()]
        assert readings["serve.items"]["value"] == length
        error = readings["quality.relative-error"]
        assert 0 < error["value"] < 1e-5 and error["n"] == 2 * task.BATCHES
        assert readings["serve.flops.useful"]["value"] <= readings["serve.flops"]["value"] <= readings["serve.flops.dense"]["value"]


@pytest.mark.parametrize("arm", ["naive", "sdpa", "chunked", "naive-jax", "sdpa-jax"])
def test_bfloat16(arm):
    cls, settings = ARMS[arm]
    out = exercise(AttentionForward, cls, data="gaussian(heads=2)", cases=("n-64",), dtype="bfloat16", **settings)
    assert 1e-4 < out["n-64", ()]["quality.relative-error"]["value"] < 2e-2


class Uniform(Attention):
    """The floor of approximations: all keys weigh the same."""

    name = "uniform"
    backend = "torch"

    def compute(self, q, k, v):
        return v.mean(2, keepdim=True).expand(v.shape).contiguous()


def test_an_approximation_is_scored_and_not_called_wrong():
    out = exercise(AttentionForward, Uniform, cases=("n-256",))
    assert 0.3 < out["n-256", ()]["quality.relative-error"]["value"] < 1.0
    method = built(Uniform)
    given = Given(HEADS, DIM, BATCH, False, inputs())
    assert 0.3 < AttentionForward().evaluate(method, given)["relative-error"] < 1.0
    assert AttentionForward().evaluate(built(Naive), given)["relative-error"] < 1e-6


def test_the_registry_reads_the_area_as_literals():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "attention" in problem]
    assert {"naive", "sdpa", "chunked", "naive-jax", "sdpa-jax"} <= set(found.methods_of("attention-forward"))
    assert found.task("attention-forward").baselines == ("sdpa", "naive")


def test_the_default_cases_grow_with_the_size():
    lengths = {size: [c["length"] for c in AttentionForward.cases if size in c.sizes] for size in ("smoke", "quick", "full")}
    assert lengths["smoke"] == [64, 128, 256]
    assert lengths["quick"] == [256, 512, 1024, 2048]
    assert lengths["full"] == [2**i for i in range(8, 17)]
    assert all(case.name == f"n-{case['length']}" for case in AttentionForward.cases)


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


# -- work ---------------------------------------------------------------------------------------------------------------


def counted(method, length):
    arrays = [method.run.put(x) for x in inputs(length=length)]
    with FlopCounterMode(display=False) as counter:
        method.attend(*arrays)
    return counter.get_total_flops()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("arm", ["naive", "sdpa-math", "chunked", "chunked-odd", "chunked-wide"])
def test_the_formula_is_what_the_counter_sees(arm, causal):
    cls, settings = ARMS[arm]
    method = built(cls, causal, **settings)
    for length in (1, 16, 37, 90):
        formula = method.flops("serve", Case("n", {"length": length}), {})
        assert formula.executed == counted(method, length)
        assert formula.useful <= formula.executed <= formula.dense == 4 * BATCH * HEADS * length**2 * DIM


@pytest.mark.parametrize("length", [1, 31, 64, 200, 512, 767, 768, 2048])
def test_a_causal_kernel_is_charged_for_the_blocks_it_visits(length):
    queries, keys = blocks(length, "cpu")
    visited = np.zeros((length, length), dtype=bool)
    for i in range(0, length, queries):
        for j in range(0, length, keys):
            if j <= min(i + queries, length) - 1:
                visited[i : i + queries, j : j + keys] = True
    assert visited[np.tri(length, dtype=bool)].all()
    flops = built(Sdpa, causal=True).flops("serve", Case("n", {"length": length}), {})
    assert flops.executed == 4 * BATCH * HEADS * DIM * visited.sum()
    assert flops.useful == 4 * BATCH * HEADS * DIM * length * (length + 1) / 2


@pytest.mark.parametrize("arm", ARMS)
def test_without_a_mask_everybody_does_the_same_work(arm):
    cls, settings = ARMS[arm]
    flops = built(cls, **settings).flops("serve", Case("n", {"length": 100}), {})
    assert flops.executed == flops.useful == flops.dense == 4 * BATCH * HEADS * 100**2 * DIM
    assert flops.other == 5 * BATCH * HEADS * 100**2
    assert built(cls, **settings).flops("build", None, {}).executed == (4 * HEADS * 16**2 * DIM if cls is Sdpa else 0)


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["naive", "sdpa-math", "naive-jax", "sdpa-jax"])
def test_a_score_matrix_that_does_not_fit_is_refused_with_a_reason(arm):
    cls, settings = ARMS[arm]
    method = built(cls, **settings)
    need = 2 * BATCH * HEADS * LENGTH**2 * 4
    method.room = need
    answer(method, *inputs())
    method.room = need - 1
    with pytest.raises(NotImplementedError, match=r"37 tokens .* GiB are free"):
        answer(method, *inputs())


@pytest.mark.parametrize("arm", ["naive", "chunked", "naive-jax", "sdpa-jax"])
def test_bad_shapes_are_refused(arm):
    cls, settings = ARMS[arm]
    method = built(cls, **settings)
    q, k, v = inputs()
    for bad, message in (
        ((q, k[:, :, :-1], v), "one shape"),
        ((q, k, v[..., :-1]), "one shape"),
        ((q[0], k[0], v[0]), "one shape"),
        ((q[:, :, :0], k[:, :, :0], v[:, :, :0]), "zero"),
        ((q[:, :2], k[:, :2], v[:, :2]), "built for 3 heads of 8, called with 2 heads"),
        ((q[..., :4], k[..., :4], v[..., :4]), "3 heads of 4"),
    ):
        with pytest.raises(ValueError, match=message):
            answer(method, *bad)


def test_kernels_that_are_not_here_are_skipped_with_a_reason():
    given = Given(HEADS, DIM, BATCH, False, ())
    for method, run, reason in (
        (Sdpa(kernel="efficient"), Run(), "no efficient kernel for cpu, float32"),
        (SdpaJax(implementation="cudnn"), Run(), "NVIDIA GPU"),
        (SdpaJax(), Run(dtype="float16"), "no float16 attention on the CPU"),
    ):
        method.run = run
        assert reason in method.skip(given)


def test_a_kernel_that_does_not_exist_is_an_error():
    for method, message in (
        (Sdpa(kernel="flsah"), "no kernel 'flsah'"),
        (SdpaJax(implementation="tpu"), "no implementation 'tpu'"),
    ):
        method.run = Run()
        with pytest.raises(ValueError, match=message):
            method.skip(Given(HEADS, DIM, BATCH, False, ()))


def test_a_head_layout_without_heads_is_refused():
    data = Data("gaussian", {**AttentionForward.data[0].args, "heads": 0})
    with pytest.raises(ValueError, match="heads must be at least 1"):
        AttentionForward().given(data, "smoke", 0, {})


# -- task ---------------------------------------------------------------------------------------------------------------


def scored(outputs, exact=True, causal=False):
    data = Data("gaussian", {"heads": 2, "head_dim": 4, "batch": 1, "causal": causal, "scale": 1.0})
    this, case, method = AttentionForward(), Case("n-8", {"length": 8}), Attention()
    method.run, method.exact = Run(), exact
    hidden, given = this.hidden(data, "smoke", 0, {}), this.given(data, "smoke", 0, {})
    truth = [globals()["exact"](*this.inputs(case, hidden, i, "float32"), causal).astype(np.float32) for i in range(task.BATCHES)]
    return this.score(method, given, hidden, case, outputs(truth))["relative-error"]


def test_score_is_the_relative_error_of_each_head():
    for causal in (False, True):
        error = scored(lambda truth: truth, causal=causal)
        assert error.shape == (2 * task.BATCHES,) and (error < 1e-6).all()
    factor = np.array([1.5, 0.9], dtype=np.float32)[None, :, None, None]
    np.testing.assert_allclose(scored(lambda truth: [factor * x for x in truth], exact=False), [0.5, 0.1] * 3, rtol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :, :-1], "shape"),
        (lambda x: x.swapaxes(1, 2), "shape"),
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: np.where(np.arange(4) == 2, np.nan, x).astype(np.float32), "NaN"),
        (lambda x: x * np.float32(1.0001), "relative error"),
    ],
)
def test_score_finds_a_broken_contract(spoil, message):
    with pytest.raises(Wrong, match=message):
        scored(lambda truth: [truth[0], truth[1], spoil(truth[2])])


def test_score_needs_every_batch():
    with pytest.raises(Wrong, match="2 outputs"):
        scored(lambda truth: truth[:2])


def test_long_inputs_are_checked_on_rows_drawn_anew(monkeypatch):
    monkeypatch.setattr(task, "EVERY_ROW", 16)
    monkeypatch.setattr(task, "SOME_ROWS", 12)
    q, k, v = inputs()
    truth = exact(q, k, v, True).astype(np.float32)
    assert (task.errors((q, k, v), truth, True, "float32", 0)[0] < 1e-6).all()
    truth[:, :, 20:30] = 0  # a lost block: some drawn row of each head lies in it
    assert (task.errors((q, k, v), truth, True, "float32", 0)[0] > 0.1).all()


def test_the_reference_does_not_depend_on_its_blocks(monkeypatch):
    q, k, v = (x[0, 0] for x in inputs())
    rows = np.array([0, 3, 4, 36])
    whole = [reference.exact_rows(q, k, v, rows, causal) for causal in (False, True)]
    monkeypatch.setattr(reference, "ENTRIES", 40)
    for (out, largest), causal in zip(whole, (False, True)):
        again, same = reference.exact_rows(q, k, v, rows, causal)
        np.testing.assert_allclose(again, out, rtol=1e-12)
        assert same == pytest.approx(largest)
        np.testing.assert_allclose(out, exact(*(x[None, None] for x in (q, k, v)), causal)[0, 0, rows], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_representable_is_the_frameworks_cast(dtype):
    x = np.concatenate([normal(5000) * 10, np.float32([0, -0.0, 1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11])])
    expected = torch.from_numpy(x).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(reference.representable(x, dtype), expected)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="int8"):
        reference.representable(normal(2), "int8")


def test_inputs_follow_the_seed_and_nothing_else():
    this = AttentionForward()
    data = AttentionForward.data[0]
    case = Case("n-64", {"length": 64})
    streams = [this.inputs(case, this.hidden(data, "smoke", seed, {}), i, "float32")[0] for seed in (0, 1) for i in range(3)]
    streams.append(this.given(data, "smoke", 0, {}).calibration[0])
    assert len({x.tobytes() for x in streams}) == len(streams)
    np.testing.assert_array_equal(streams[0], this.inputs(case, this.hidden(data, "smoke", 0, {}), 0, "float32")[0])


def test_logits_spread_as_the_data_says():
    for data in (
        dataclasses.replace(AttentionForward.data[0], args={**AttentionForward.data[0].args, "scale": 1.5}),
        AttentionForward.data[1],
    ):
        q, k, _ = task.draw(data, 256, (0,))
        spread = (q @ k.swapaxes(2, 3) / np.sqrt(64)).std()
        assert spread == pytest.approx(data.args.get("sharpness", 1.5**2), rel=0.05)


def test_a_raw_exponential_overflows_on_peaked_data_at_every_length():
    for length in (64, 256):
        q, k, _ = task.draw(AttentionForward.data[1], length, (0, 1, length, 0))
        assert (q @ k.swapaxes(2, 3) / 8).max() > np.log(np.finfo(np.float32).max)


def test_different_precisions_are_not_compared():
    this = AttentionForward()
    assert this.unfair({"dtype": "float32"}, {"dtype": "float32"}) == ""
    assert "bfloat16" in this.unfair({"dtype": "float32"}, {"dtype": "bfloat16"})


def test_the_task_imports_no_framework():
    code = (
        "import sys; from effbench.plan.origins import mount, own_origin; mount(own_origin());"
        "import effbench_implementations.attention.task; sys.exit(bool({'torch', 'jax'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
