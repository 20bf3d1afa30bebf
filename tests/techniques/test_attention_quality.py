"""A transformer trained with another attention: the same start for every arm, what is asked, and that exact attention retrieves."""

import numpy as np
import pytest
import torch
from effbench_implementations.attention import quality_training as training
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.quality import AttentionQuality, Given, examples
from effbench_implementations.attention.quality_arms import (
    TrainedAttention,
    TrainedFavorPlus,
    TrainedSdpa,
    TrainedToeplitzLinear,
    TrainedTreeformerTc,
    TrainedTreeformerTf,
)
from effbench_implementations.attention.quality_uniform import TrainedUniform

from effbench import Budget, Data, Run
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

ARMS = [TrainedSdpa, TrainedFavorPlus, TrainedTreeformerTf, TrainedTreeformerTc, TrainedToeplitzLinear, TrainedUniform]
TEXT = "next-bytes(d=16, heads=2, length=32, batch=4)"
PAIRS = "retrieval(d=16, heads=2, length=16, batch=4, keys=8, values=4)"
NONE = np.zeros(0, np.uint8)


def given(length=16, keys=8, values=4, batch=4, d=16, text=NONE):
    return Given(text, text, d, 2, 2, length, batch, keys, values, 2)


def trained(cls, steps, what, **settings):
    method = cls(**settings)
    method.run = Run(backend=get("torch"), budget=Allowance(steps=steps))
    for _ in method.build(what, method.run):
        pass
    return method


# -- data ---------------------------------------------------------------------------------------------------------------


def is_retrieval(ids, targets, asked):
    """Every key once with a value and once blank, in another order; the answer is the value that the key had."""
    half, width = ids.shape[1] // 2, asked.values + 1
    key, value = ids // width, ids % width
    assert (value[:, :half] < asked.values).all() and (value[:, half:] == asked.values).all()
    assert (targets[:, :half] == -100).all()
    for row in range(len(ids)):
        table = dict(zip(key[row, :half], value[row, :half]))
        assert len(table) == half and sorted(table) == sorted(key[row, half:])
        assert [table[k] for k in key[row, half:]] == list(targets[row, half:])
    assert (key[:, :half] != key[:, half:]).any()


def test_retrieval_asks_for_what_was_seen():
    asked = given(keys=12)
    ids, targets = examples(NONE, asked, 50, np.random.default_rng(0))
    is_retrieval(ids, targets, asked)
    assert ids.max() < asked.vocabulary == 60 and set(np.unique(targets)) == {-100, 0, 1, 2, 3}
    with pytest.raises(AssertionError):
        is_retrieval(ids, np.roll(targets, 1, 1), asked)


def test_text_asks_for_the_next_byte():
    text = np.arange(100, dtype=np.uint8)
    ids, targets = examples(text, given(keys=0, values=0), 5, np.random.default_rng(0))
    np.testing.assert_array_equal(targets[:, :-1], ids[:, 1:])
    assert (targets[:, -1] == -100).all()


@pytest.mark.parametrize(
    ("change", "message"), [({"heads": 0}, "heads must"), ({"length": 15}, "even"), ({"length": 400}, "twice")]
)
def test_impossible_data_is_refused(change, message):
    data = Data("retrieval", {**AttentionQuality.data[1].args, **change})
    with pytest.raises(ValueError, match=message):
        AttentionQuality().given(data, "smoke", 0, {"text": np.zeros(1000, np.uint8)})


# -- the network --------------------------------------------------------------------------------------------------------


def test_swapped_attention_is_the_shared_transformers():
    """With exact attention in its place the network is the one of `shared.transformer`, number for number."""
    from effbench_implementations.shared.transformer import Transformer

    what, run = given(keys=0, values=0), Run(backend=get("torch"))
    net = training.network(what, run)
    training.install(net, what, run, Naive)
    plain = Transformer(what.vocabulary, what.d, what.layers, what.heads, what.length, causal=True)
    plain.load_state_dict(net.state_dict())
    ids = torch.randint(0, 128, (3, 16))
    torch.testing.assert_close(net(ids), plain(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cls", ARMS)
def test_no_arm_sees_the_future(cls):
    method = trained(cls, 4, given())
    ids = torch.from_numpy(examples(NONE, given(), 2, np.random.default_rng(0))[0])
    before = method.predict(ids)
    changed = ids.clone()
    changed[:, 9:] = (changed[:, 9:] + 7) % method.given.vocabulary
    after = method.predict(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(after[:, 9:], before[:, 9:], atol=1e-3)


def test_all_arms_start_from_one_network_and_see_one_stream(monkeypatch):
    first = {}
    original = training.loss

    def watch(logits, targets):
        first.setdefault("targets", []).append(targets.numpy().copy())
        return original(logits, targets)

    monkeypatch.setattr(training, "loss", watch)
    streams, weights = [], []
    for cls in ARMS:
        first.clear()
        weights.append(training.network(given(), Run(backend=get("torch"))).state_dict())
        trained(cls, 3, given())
        streams.append(np.stack(first["targets"]))
    assert all(np.array_equal(streams[0], other) for other in streams[1:])
    assert all(torch.equal(weights[0][name], other[name]) for other in weights[1:] for name in other)


def test_trees_are_fitted_to_the_network_half_way(monkeypatch):
    calls = []
    original = training.install
    monkeypatch.setattr(training, "install", lambda net, *rest: (calls.append(rest[-1]), original(net, *rest)))
    method = trained(TrainedTreeformerTf, 4, given(), bootstrap=0.5)
    assert len(calls) == 2 and method.net.blocks[0].attention.core.name == "treeformer-tf"
    assert not torch.equal(*(block.attention.core.weights for block in method.net.blocks))
    with pytest.raises(ValueError, match="bootstrap=1"):
        trained(TrainedTreeformerTf, 4, given(), bootstrap=1.0)


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [TEXT, PAIRS])
@pytest.mark.parametrize("cls", ARMS)
def test_every_arm_runs_and_is_counted(cls, data):
    readings = exercise(AttentionQuality, cls, data=data, budget=Budget(steps=6), seconds=0.001)["window-4", ()]
    assert 0 < readings["quality.bits"]["value"] < 9
    assert ("quality.retrieval-accuracy" in readings) == (data == PAIRS)
    assert readings["serve.flops"]["value"] == pytest.approx(readings["serve.flops.counter"]["value"], rel=1e-9)


class Blind(TrainedAttention):
    """Every token sees itself only: the floor of retrieval."""

    name = "blind"

    def core(self):
        class Itself(Naive):
            def compute(self, q, k, v):
                return v

        return Itself()


def retrieves(cls):
    what = Given(NONE, NONE, 32, 2, 2, 16, 32, 8, 4, 4)
    method = trained(cls, 80, what, learning_rate=0.005)
    return training.measured(method.net, what, NONE, method.run, stream=(1, 4))["retrieval-accuracy"].mean()


def test_exact_attention_retrieves_and_no_attention_does_not():
    assert retrieves(TrainedSdpa) > 0.6
    assert retrieves(Blind) < 0.4  # one of four values


def test_a_budget_in_steps_and_windows_that_fit_are_asked_for():
    with pytest.raises(ValueError, match="budget in steps"):
        trained(TrainedSdpa, None, given())
    method = trained(TrainedSdpa, 1, given())
    with pytest.raises(ValueError, match="positions"):
        method.predict(torch.zeros(1, 17, dtype=torch.int64))
    with pytest.raises(ValueError, match="integers"):
        method.predict(torch.zeros(1, 4))
    assert "different budgets" in AttentionQuality().unfair({"budget": {"steps": 1}}, {"budget": {"steps": 2}})


def test_the_registry_reads_the_arms():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "attention" in problem]
    assert set(found.methods_of("attention-quality")) == {cls.name for cls in ARMS}
