"""Exact attention in runs: every arm ends with sound readings, the work is counted right, and what cannot be done is refused."""

import numpy as np
import pytest
from effbench_implementations.attention import task
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.sdpa import Sdpa, blocks
from effbench_implementations.attention.sdpa_jax import SdpaJax
from effbench_implementations.attention.task import Attention, AttentionForward, Given
from torch.utils.flop_counter import FlopCounterMode

from effbench import Case, Data, Run
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

from .attention_arms import ARMS, BATCH, DIM, HEADS, LENGTH, answer, built, inputs

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
