"""Mixture-of-experts layers: routing against plain loops, exact balance, what is dropped, causality, and the work that is counted."""

import numpy as np
import pytest
import torch
from effbench_implementations.experts import routing, training
from effbench_implementations.experts.dense import Dense
from effbench_implementations.experts.expert_choice import Choice, ExpertChoice
from effbench_implementations.experts.hash_routing import HashRouting
from effbench_implementations.experts.task import ExpertTask
from effbench_implementations.experts.top_2 import TokenChoice, Top2
from effbench_implementations.shared import text
from effbench_implementations.shared.transformer import FeedForward, Transformer, restore, store

from effbench import Budget, Case, Data, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops_torch import count_torch
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

ARMS = [Dense, Top2, ExpertChoice, HashRouting]
N, D, F, E = 40, 6, 10, 4


def token_choice(capacity=1.25, *, count=E, balance=0.01, seed=0):
    torch.manual_seed(seed)
    layer = TokenChoice(D, F, count, capacity, capacity, balance).double()
    layer.gate.weight.data *= 50  # a gate that has opinions
    return layer


def expert_choice(taken, seed=0):
    torch.manual_seed(seed)
    layer = Choice(D, F, E, lambda n: taken).double()
    layer.gate.weight.data *= 50
    return layer


def tokens(n=N, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, D)))


def one(layer, e, x):
    return torch.nn.functional.gelu(x @ layer.experts.up[e]) @ layer.experts.down[e]


def by_loop(layer, x, room):
    """Top-2 as it is described: first choices of all tokens in turn, then second choices, each while there is room."""
    chances = torch.softmax(x @ layer.gate.weight.T, -1)
    out, load = torch.zeros_like(x), [0] * E
    ranked = chances.argsort(-1, descending=True)
    for choice in (0, 1):
        for t in range(len(x)):
            e = int(ranked[t, choice])
            if load[e] < room:
                load[e] += 1
                out[t] += chances[t, e] / chances[t, ranked[t, :2]].sum() * one(layer, e, x[t])
    return out


def equals_the_loop(layer):
    for seed in (1, 2):
        x = tokens(seed=seed)
        room = routing.slots(layer.capacity, 2 * N, E)
        torch.testing.assert_close(layer(x), by_loop(layer, x, room), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("capacity", [0.25, 0.5, 1.0, 1.25, 4.0])
def test_top_2_is_the_loop_over_tokens(capacity):
    layer = token_choice(capacity)
    equals_the_loop(layer)
    if capacity < 1:
        assert layer.shares()["dropped"] >= 1 - capacity - 0.1


def test_top_2_oracle_rejects_what_is_broken():
    class TokenMajor(TokenChoice):
        def forward(self, x, ids=None):
            return super().forward(x.flip(0)).flip(0)  # the last token first

    class NoWeights(TokenChoice):
        def forward(self, x, ids=None):
            return 2 * super().forward(x)

    for broken in (TokenMajor, NoWeights):
        layer = token_choice(0.5)
        layer.__class__ = broken
        with pytest.raises(AssertionError):
            equals_the_loop(layer)


def test_equal_experts_without_drops_are_the_dense_layer():
    layer = token_choice(4.0)
    for weight in (layer.experts.up, layer.experts.down):
        weight.data[:] = weight.data[:1]
    x = tokens()
    torch.testing.assert_close(layer(x), one(layer, 0, x), rtol=1e-9, atol=1e-12)
    assert layer.shares()["dropped"] == 0 and layer.shares()["unserved"] == 0


def test_no_expert_exceeds_its_room_and_the_rest_gives_zero():
    layer = token_choice(0.25)
    x = tokens()
    out = layer(x)
    unserved = (out == 0).all(-1)
    assert unserved.double().mean().item() == pytest.approx(float(layer.shares()["unserved"]))
    assert unserved.any() and float(layer.shares()["dropped"]) == pytest.approx(1 - E * 5 / 80, abs=0.1)


def test_the_load_loss_is_alpha_for_an_even_load_and_alpha_e_for_a_collapse():
    layer = token_choice(4.0)
    layer.gate.weight.data[:] = 0
    layer.gate.weight.data[0, 0] = 1e3
    x = torch.ones(N, D, dtype=torch.float64)
    layer(x)
    assert layer.auxiliary.item() == pytest.approx(0.01 * E, rel=1e-6)
    eye = token_choice(4.0, count=4)
    eye.gate.weight.data[:] = 1e3 * torch.eye(4, D)
    eye(torch.eye(4, D, dtype=torch.float64).repeat(10, 1))
    assert eye.auxiliary.item() == pytest.approx(0.01, rel=1e-6)


def test_the_gate_learns():
    layer, x = token_choice(2.0), tokens()
    weight = torch.randn(N, D, dtype=torch.float64)
    (layer(x) * weight).sum().backward()
    found, step = layer.gate.weight.grad[1, 2].item(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            layer.gate.weight[1, 2] += sign * step
            values.append((layer(x) * weight).sum().item())
            layer.gate.weight[1, 2] -= sign * step
    assert found != 0 and found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_drops_let_later_tokens_change_earlier_ones_and_room_does_not():
    for capacity, leaks in ((0.5, True), (4.0, False)):
        layer = token_choice(capacity)
        moved = 0.0
        for seed in range(5):
            x = tokens(seed=seed)
            y = x.clone()
            y[N // 2 :] = tokens(N - N // 2, seed=50 + seed)
            moved = max(moved, (layer(x) - layer(y))[: N // 2].abs().max().item())
        assert (moved > 1e-3) == leaks


# -- expert choice ------------------------------------------------------------------------------------------------------


def one_hot_form(layer, x, taken):
    s = torch.softmax(x @ layer.gate.weight.T, -1)
    weight, index = s.T.topk(taken, -1)
    p = torch.nn.functional.one_hot(index, len(x)).double()
    inner = torch.stack([one(layer, e, p[e] @ x) for e in range(E)])
    return torch.einsum("ekn,ek,ekd->nd", p, weight, inner)


@pytest.mark.parametrize("taken", [1, 7, 20, N])
def test_expert_choice_is_its_one_hot_form(taken):
    layer, x = expert_choice(taken), tokens()
    torch.testing.assert_close(layer(x), one_hot_form(layer, x, taken), rtol=1e-9, atol=1e-12)
    order = torch.randperm(N)
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=1e-9, atol=1e-12)
    if taken < N:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(expert_choice(taken + 1)(x), one_hot_form(layer, x, taken), rtol=1e-9, atol=1e-12)


def test_experts_that_take_all_tokens_are_a_soft_mixture():
    layer, x = expert_choice(N), tokens()
    s = torch.softmax(x @ layer.gate.weight.T, -1)
    torch.testing.assert_close(layer(x), sum(s[:, e : e + 1] * one(layer, e, x) for e in range(E)), rtol=1e-9, atol=1e-12)


def test_expert_choice_sees_later_tokens_and_says_so():
    layer = expert_choice(5)
    x = tokens()
    y = x.clone()
    y[-1] *= 20
    assert (layer(x) - layer(y))[:-1].abs().max() > 1e-6
    method = ExpertChoice()
    method.run = Run()
    given = ExpertTask().given(Data("next-bytes", ExpertTask.data[1].args), "smoke", 0, {"text": text.standard_library(60_000)})
    assert "later ones" in method.skip(given)


# -- transformer and text -----------------------------------------------------------------------------------------------


def net(**settings):
    torch.manual_seed(0)
    return Transformer(20, 8, 2, 2, 12, **settings).double()


def test_a_causal_network_does_not_see_the_future_and_an_encoder_does():
    ids = torch.randint(0, 20, (3, 12))
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 20
    for causal in (True, False):
        same = torch.allclose(net(causal=causal)(ids)[:, :7], net(causal=causal)(other)[:, :7], atol=1e-12)
        assert same == causal


def test_a_decoder_reads_its_memory_and_not_what_is_masked():
    decoder, ids = net(causal=True, cross=True), torch.randint(0, 20, (3, 12))
    memory = torch.randn(3, 5, 8, dtype=torch.float64)
    out = decoder(ids, memory)
    assert not torch.allclose(decoder(ids, memory + 1), out)
    torch.testing.assert_close(decoder(ids, memory.flip(1)), out)
    longer = torch.cat((memory, torch.randn(3, 2, 8, dtype=torch.float64)), 1)
    mask = torch.arange(7).expand(3, 7) < 5
    torch.testing.assert_close(decoder(ids, longer, mask), out)
    for block in decoder.blocks:
        block.cross.out.weight.data.zero_()
    torch.testing.assert_close(decoder(ids, memory), decoder(ids, longer))


def test_a_network_survives_its_arrays_and_refuses_what_does_not_fit():
    first, second = net(), net().float()
    restore(second, store(first))
    torch.testing.assert_close(second.double()(torch.arange(12)[None]), first.float().double()(torch.arange(12)[None]))
    with pytest.raises(ValueError, match="13 tokens"):
        first(torch.zeros(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 heads"):
        Transformer(20, 8, 2, 3, 12)


def test_the_text_is_python_and_its_parts_do_not_overlap():
    source = text.standard_library(50_000)
    assert source.dtype == np.uint8 and source.max() < 128 and len(source) == 50_000 and b"import" in source.tobytes()
    assert [len(part) for part in text.split(source)] == [40_000, 5_000, 5_000]
    with pytest.raises(ValueError, match="were asked for"):
        text.standard_library(10**10)


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["masked-bytes(d=16, width=16, heads=2)", "next-bytes(d=16, width=16, heads=2)"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_learns_at_smoke_size(arm, data):
    settings = {"budget": Budget(steps=20), "learning_rate": 0.02, "seconds": 0.001}
    if arm is ExpertChoice and "next" in data:
        pytest.skip("sees the future")
    out = exercise(ExpertTask, arm, data=data, **settings)
    readings = out["network-1024", ()]
    assert 3 < readings["quality.bits-per-byte"]["value"] < 6.5  # 7 bits is chance
    assert readings["serve.flops"]["how"] == "formula, counter agrees"
    if arm is ExpertChoice:
        assert readings["quality.largest-load"]["value"] == 1


@pytest.mark.parametrize("arm", ARMS)
def test_active_work_is_equal_and_the_formula_is_what_the_counter_sees(arm):
    task, run = ExpertTask(), Run(backend=get("torch"), budget=Allowance(steps=1))
    given = task.given(task.data[0], "smoke", 0, {"text": text.standard_library(60_000)})
    method = arm()
    method.run = run
    method.prepare(given)
    method.net.eval()
    for n in (64, 1024):
        x, ids = torch.randn(n, given.d), torch.randint(0, 128, (n,))
        flops = method.flops("serve", Case("layer", {"part": "layer", "tokens": n}), {})
        assert flops.executed == pytest.approx(count_torch(method.apply, x, ids).executed, rel=0.01)
        assert flops.useful == pytest.approx(flops.dense, rel=0.02)


def test_the_layer_stored_is_the_layer_loaded(tmp_path):
    task = ExpertTask()
    given = task.given(task.data[0], "smoke", 0, {"text": text.standard_library(60_000)})
    for arm in ARMS:
        first, second = arm(), arm()
        for seed, method in enumerate((first, second)):
            method.run = Run(backend=get("torch"), budget=Allowance(steps=1), seed=seed)
        first.prepare(given)
        first.net.eval()
        first.save(tmp_path)
        second.load(tmp_path, given)
        ids = torch.randint(0, 128, (2, 64))
        torch.testing.assert_close(second.predict(ids), first.predict(ids))


def test_what_is_asked_is_hidden():
    task = ExpertTask()
    for data, causal in zip(task.data, (False, True)):
        given = task.given(data, "smoke", 0, {"text": text.standard_library(60_000)})
        ids = text.windows(given.train, 50, 64, np.random.default_rng(0))
        inputs, targets = training.hide(ids, given, np.random.default_rng(1))
        if causal:
            assert (targets[:, :-1] == ids[:, 1:]).all() and (targets[:, -1] == -100).all()
        else:
            asked = targets != -100
            assert 0.15 < asked.mean() < 0.25 and (inputs[asked] == 128).all() and (inputs[~asked] == ids[~asked]).all()


@pytest.mark.parametrize(
    ("arm", "settings", "message"),
    [
        (Top2, {"experts": 1}, "at least 2"),
        (Top2, {"capacity": 0.0}, "capacity=0.0"),
        (Top2, {"balance": -1.0}, "balance=-1.0"),
        (ExpertChoice, {"experts": 0}, "experts=0"),
        (ExpertChoice, {"capacity": -1.0}, "capacity=-1.0"),
        (HashRouting, {"experts": 1000}, "1 to 129"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arm, settings, message):
    with pytest.raises(ValueError, match=message):
        exercise(ExpertTask, arm, budget=Budget(steps=1), **settings)


@pytest.mark.parametrize("layer", [TokenChoice(D, F, 64, 0.5, 0.5, 0.01), Choice(D, F, 64, lambda n: 1)])
def test_more_experts_than_tokens(layer):
    assert layer(torch.randn(3, D)).shape == (3, D)
    assert torch.isfinite(layer(torch.randn(1, D))).all()


def test_feed_forward_ignores_ids():
    layer = FeedForward(4, 8)
    x = torch.randn(5, 4)
    torch.testing.assert_close(layer(x, torch.arange(5)), layer(x))


def test_the_registry_reads_the_area():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "experts" in problem]
    assert {"dense", "top-2", "expert-choice", "hash-routing"} <= set(found.methods_of("expert-layers"))
