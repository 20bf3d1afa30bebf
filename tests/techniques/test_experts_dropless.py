"""Experts served without capacity: grouped products against a plain loop over tokens in float64, edge cases, budgets in seconds.

The kernels of combine_triton.py and counting_triton.py are compared with dropless.py on a GPU, or anywhere by Triton's interpreter: TRITON_INTERPRET=1.
"""

import importlib.util
import os

import numpy as np
import pytest
import torch
from effbench_implementations.experts import dropless, routing, training
from effbench_implementations.experts.dense import Dense
from effbench_implementations.experts.expert_choice import Choice, ExpertChoice
from effbench_implementations.experts.hash_routing import Hashed, HashRouting
from effbench_implementations.experts.task import VOCABULARY, ExpertTask
from effbench_implementations.experts.top_2 import TokenChoice, Top2
from effbench_implementations.shared import text
from torch.nn.functional import gelu

from effbench import Budget, Case, Data, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.run.exercise import exercise

N, D, F, E = 40, 8, 12, 4
SMALL = "masked-bytes(d=16, width=16, heads=2)"
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def top_2(count=E, *, d=D, f=F, skew=0.0, seed=0):
    """A gate with opinions; `skew` sends ever more tokens to few experts."""
    torch.manual_seed(seed)
    layer = TokenChoice(d, f, count, 1.25, 2.0, 0.01, grouped=True).eval()
    layer.gate.weight.data *= 50
    layer.gate.weight.data[0] += skew
    return layer


def hashed(count=E, seed=0):
    torch.manual_seed(seed)
    return Hashed(D, F, count, 1.0, grouped=True).eval()


def tokens(n=N, d=D, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32))


def one(layer, e, x):
    return gelu(x @ layer.experts.up[e].double()) @ layer.experts.down[e].double()


def by_loop(layer, x, ids):
    """Token by token in float64: nothing is sorted, nothing is dropped."""
    x, out = x.double(), torch.zeros(x.shape, dtype=torch.float64)
    for t in range(len(x)):
        if isinstance(layer, Hashed):
            out[t] = one(layer, int(layer.table[ids[t]]), x[t])
            continue
        chances = torch.softmax(layer.gate.weight.double() @ x[t], -1)
        a, b = chances.argsort(descending=True)[:2].tolist()
        out[t] = (chances[a] * one(layer, a, x[t]) + chances[b] * one(layer, b, x[t])) / (chances[a] + chances[b])
    return out


@torch.no_grad()
def equals_the_loop(layer, n=N, d=D):
    for seed in (1, 2):
        x, ids = tokens(n, d, seed), torch.from_numpy(np.random.default_rng(seed).integers(0, VOCABULARY, n))
        torch.testing.assert_close(layer(x, ids).double(), by_loop(layer, x, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "n"),
    [
        (top_2(), N),
        (top_2(skew=20.0), N),  # most tokens to one expert: far over the capacity that training has
        (top_2(64), 3),  # more experts than tokens
        (top_2(64), 1),
        (top_2(2), 1),
        (hashed(), N),
        (hashed(VOCABULARY), 5),
        (hashed(1), 1),
    ],
)
def test_grouped_is_the_loop_over_tokens_with_nothing_dropped(layer, n):
    equals_the_loop(layer, n)
    found = layer.shares()
    assert found["dropped"] == 0 and found["unserved"] == 0 and found["largest-load"] >= 1


def test_an_expert_without_tokens_and_one_with_all():
    layer, x = top_2(), tokens()
    layer.gate.weight.data.zero_()
    layer.gate.weight.data[2, 0], layer.gate.weight.data[1, 0] = 9.0, 5.0
    x[:, 0] = 1.0
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), by_loop(layer, x, None), rtol=1e-4, atol=1e-5)
        assert layer.shares()["largest-load"] == E / 2  # the two of four that get anything


def test_no_tokens_give_no_output():
    with torch.no_grad():
        assert top_2()(tokens(0)).shape == (0, D)


def from_buffers(layer, x, ids):
    layer.grouped = False
    layer.capacity_served = 1.0
    return TokenChoice.forward(layer, x, ids)


def shifted_offsets(layer, x, ids):
    expert, weight = dropless.two_best(routing.logits(layer.gate, x))
    ends, token, place = dropless.by_expert(expert, E)
    y = dropless.products(x[token], (ends + 1).clamp(max=2 * len(x)).int(), layer.experts)
    return dropless.combine(y, place, weight.flatten(), len(x), each=2)


def without_the_way_back(layer, x, ids):
    expert, weight = dropless.two_best(routing.logits(layer.gate, x))
    ends, token, place = dropless.by_expert(expert, E)
    return dropless.combine(dropless.products(x[token], ends, layer.experts), place.argsort(), weight.flatten(), len(x), each=2)


def choice_major_rows(layer, x, ids):
    expert, weight = dropless.two_best(routing.logits(layer.gate, x))
    ends, _, place = dropless.by_expert(expert, E)
    return dropless.combine(
        dropless.products(x[place.argsort() % len(x)], ends, layer.experts), place, weight.flatten(), len(x), each=2
    )


def weights_swapped(layer, x, ids):
    expert, weight = dropless.two_best(routing.logits(layer.gate, x))
    return dropless.serve(x, expert, weight.flip(1), layer.experts)


@pytest.mark.parametrize("broken", [from_buffers, shifted_offsets, without_the_way_back, choice_major_rows, weights_swapped])
def test_the_oracle_rejects_what_is_broken(broken):
    layer = top_2(skew=3.0)
    equals_the_loop(layer)
    layer.forward = lambda x, ids=None: broken(layer, x, ids)
    with pytest.raises(AssertionError):
        equals_the_loop(layer)


def test_buffers_with_room_for_all_and_grouped_rows_agree():
    """Also with gradients on, and in training mode nothing is served: capacity holds."""
    layer, x = top_2(skew=3.0), tokens()
    served = layer(x)
    layer.grouped, layer.capacity_served = False, float(E)
    torch.testing.assert_close(served, layer(x), rtol=1e-4, atol=1e-5)
    layer.grouped, layer.capacity = True, 0.25
    layer.train()
    assert (layer(x) == 0).all(-1).any() and layer.shares()["dropped"] > 0.5


@pytest.mark.parametrize("token", [[3, 1, 3, 0, 3], [0], [5, 5]])
def test_rows_of_a_token_are_added_up_however_many_there_are(token):
    token, n = torch.tensor(token), 6
    y, weight = torch.randn(len(token), D), torch.rand(len(token))
    row, start = dropless.by_token(token, n)
    expected = torch.zeros(n, D).index_add(0, token, y * weight[:, None])
    torch.testing.assert_close(dropless.combine(y, row, weight[row], n, start=start), expected)
    if len(token) > 2:  # the weights must be put into the order of the rows
        with pytest.raises(AssertionError):
            torch.testing.assert_close(dropless.combine(y, row, weight, n, start=start), expected)


@pytest.mark.parametrize(("n", "capacity"), [(N, 0.1), (N, 0.5), (3, 0.5), (1, 2.0)])
def test_expert_choice_at_small_capacity_and_few_tokens(n, capacity):
    torch.manual_seed(0)
    method = ExpertChoice(experts=E, capacity=capacity)
    layer, x = Choice(D, F, E, method.taken), tokens(n)
    expected = torch.zeros(n, D, dtype=torch.float64)
    chances = torch.softmax(x.double() @ layer.gate.weight.T.double(), -1)
    for e in range(E):
        for t in chances[:, e].argsort(descending=True)[: max(1, int(np.ceil(capacity * n / E)))].tolist():
            expected[t] += chances[t, e] * one(layer, e, x[t].double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-6)


# -- the methods --------------------------------------------------------------------------------------------------------


def method_of(cls, *, data=SMALL, dtype="float32", **settings):
    name, _, rest = data.partition("(")
    args = ExpertTask.data[0].args | {k.strip(): int(v) for k, v in (pair.split("=") for pair in rest.rstrip(")").split(","))}
    given = ExpertTask().given(Data(name, args), "smoke", 0, {"text": text.standard_library(60_000)})
    method = cls(**settings)
    method.run = Run(backend=get("torch"), budget=Allowance(steps=1), dtype=dtype)
    return method, given


@pytest.mark.parametrize("cls", [Top2, HashRouting])
@pytest.mark.parametrize("kernel", ["padded", "grouped"])
def test_the_formula_is_what_runs_and_grouped_runs_no_more_than_is_useful(cls, kernel):
    method, given = method_of(cls, kernel=kernel)
    method.prepare(given)
    method.settle()
    x, ids = torch.randn(256, given.d), torch.randint(0, 128, (256,))
    flops = method.flops("serve", Case("layer", {"part": "layer", "tokens": 256}), {})
    assert flops.executed == pytest.approx(count_torch(method.apply, x, ids).executed, rel=0.01)
    assert flops.executed == pytest.approx((2 if kernel == "padded" else 1) * flops.useful, rel=0.1)  # the gate runs once
    assert method.layer_flops(256, training=True).executed > 1.1 * flops.useful


def test_grouped_where_it_cannot_run_is_refused_and_auto_takes_buffers():
    method, given = method_of(Top2, data="masked-bytes(d=6, width=10, heads=2)", kernel="grouped")
    with pytest.raises(ValueError, match="divisible by 4"):
        method.prepare(given)
    method, given = method_of(Top2, data="masked-bytes(d=6, width=10, heads=2)")
    method.prepare(given)
    assert not method.grouped()
    method, given = method_of(Top2, kernel="fast")
    with pytest.raises(ValueError, match="kernel='fast'"):
        method.prepare(given)
    assert "float64" in dropless.refusal("float64", "cpu", 8, 8)


@pytest.mark.parametrize("cls", [Dense, Top2, ExpertChoice, HashRouting])
def test_bfloat16_is_served_close_to_float32(cls, tmp_path):
    outs = {}
    for dtype in ("float32", "bfloat16"):
        method, given = method_of(cls, dtype=dtype)
        assert method.skip(given) == ""
        method.prepare(given)
        method.settle()
        ids = torch.randint(0, 128, (2, 64), generator=torch.Generator().manual_seed(0))
        outs[dtype] = method.predict(ids)
        assert outs[dtype].dtype == getattr(torch, dtype)
    # Near ties choose another expert, so a few outputs are far: the norm is compared.
    assert (outs["bfloat16"] - outs["float32"]).norm() < 0.03 * outs["float32"].norm()
    method.save(tmp_path)
    method.load(tmp_path, given)
    torch.testing.assert_close(method.predict(ids), outs["bfloat16"])


def test_logits_of_bfloat16_tokens_do_not_tie():
    gate = torch.nn.Linear(64, 2, bias=False).bfloat16()
    gate.weight.data[:] = 1.0
    gate.weight.data[1, 0] = 1.0078125
    with torch.no_grad():
        found = routing.logits(gate, torch.ones(1, 64, dtype=torch.bfloat16))
        assert found.dtype == torch.float32 and found[0, 1] > found[0, 0]
        assert gate(torch.ones(1, 64, dtype=torch.bfloat16)).unique().numel() == 1  # in half precision they do


def test_a_budget_in_seconds_ends_and_anneals():
    out = exercise(ExpertTask, Top2, data=SMALL, budget=Budget(time=0.3), seconds=0.001)
    assert out["network-1024", ()]["quality.bits-per-byte"]["value"] < 7.5
    with pytest.raises(ValueError, match="need a budget"):
        exercise(ExpertTask, Top2, data=SMALL, budget=Budget(samples=100), seconds=0.001)


def test_the_learning_rate_follows_the_share_of_the_budget():
    by_steps = training.Progress(Allowance(steps=1000))
    assert by_steps.rate() == pytest.approx(0.01)
    by_steps.done = 1000
    assert by_steps.rate() == pytest.approx(0.1) and by_steps.over()
    by_time = training.Progress(Allowance(time=10.0))
    for spent, done, rate in ((0.0, 0, 0.01), (0.1, 1, 0.1), (0.5, 1, 0.5), (5.0, 500, 0.55), (10.0, 900, 0.1)):
        by_time.spent, by_time.done = spent, done
        assert by_time.rate() == pytest.approx(rate, rel=0.02)
    assert by_time.over()


# -- the GPU's kernels ----------------------------------------------------------------------------------------------------


@pytest.fixture
def kernels(interpreter_scalars):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton")
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs a CUDA device or TRITON_INTERPRET=1")
    from effbench_implementations.experts import combine_triton

    return combine_triton


@pytest.mark.parametrize(("n", "count", "d"), [(40, 4, 24), (1, 64, 8), (37, 6, 1030), (3, 2, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_are_what_is_written_out(kernels, n, count, d, dtype):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = torch.Generator().manual_seed(n)
    logits = torch.randn(n, count, generator=rng)
    expert, weight = kernels.choose(logits.to(device))
    expected, shares = dropless.two_best(logits)
    assert (expert.cpu() == expected).all()
    torch.testing.assert_close(weight.cpu(), shares)
    y, row = torch.randn(2 * n, d, generator=rng).to(dtype), torch.randperm(2 * n, generator=rng)
    weight = torch.rand(2 * n, generator=rng)
    found = kernels.combine(y.to(device), row.to(device), weight.to(device), n, each=2).cpu()
    torch.testing.assert_close(found, dropless.combine(y, row, weight, n, each=2))
    row, start = dropless.by_token(torch.randint(0, n, (2 * n,), generator=rng), n)
    found = kernels.combine(y.to(device), row.to(device), weight.to(device), n, start=start.to(device)).cpu()
    torch.testing.assert_close(found, dropless.combine(y, row, weight, n, start=start))


@pytest.mark.parametrize(("n", "k", "count"), [(700, 2, 64), (1, 2, 8), (0, 2, 4), (300, 1, 6), (5000, 2, 256), (129, 2, 1)])
def test_the_counting_sort_is_the_stable_sort(kernels, n, k, count):
    from effbench_implementations.experts import counting_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = torch.Generator().manual_seed(n)
    expert = torch.randint(0, max(1, count // 2), (n, k), generator=rng).to(torch.int16)  # half of the experts get nothing
    for found, wanted in zip(counting_triton.by_expert(expert.to(device), count), dropless.by_expert(expert, count)):
        assert found.dtype == wanted.dtype and torch.equal(found.cpu(), wanted)


@pytest.mark.parametrize("cls", [TokenChoice, Choice])
class TestOnAGpu:
    pytestmark = gpu

    def layer(self, cls):
        torch.manual_seed(0)
        made = top_2(64, d=64, f=128) if cls is TokenChoice else Choice(64, 128, 64, lambda n: n // 32)
        return made.cuda().bfloat16().eval()

    def test_a_call_is_captured_and_close_to_float32(self, cls):
        layer, x = self.layer(cls), tokens(512, 64).cuda().bfloat16()
        with torch.no_grad():
            found = layer(x)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                again = layer(x)
            graph.replay()
            torch.testing.assert_close(again, found)
        wide = layer.float().cpu()
        if cls is TokenChoice:
            wide.grouped, wide.capacity_served = False, 64.0
        with torch.no_grad():
            far = (wide(x.float().cpu()) - found.float().cpu()).norm() / found.float().norm().cpu()
        assert far < 0.05  # a near tie may go to another expert
