"""The task attention-forward: how an answer is scored, what a broken contract is, and how its data are drawn."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from effbench_implementations.attention import reference, task
from effbench_implementations.attention.task import Attention, AttentionForward

from effbench import Case, Data, Run, Wrong

from .attention_arms import exact, inputs, normal


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
