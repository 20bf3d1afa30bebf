"""Lazy neurons and Top-k: the skipping kernel against the dense layer, what is kept, gradients, shares, noise, and counted work."""

import numpy as np
import pytest
import torch
from effbench_implementations.activation import skipping, training
from effbench_implementations.activation.dense_gelu import DenseGelu
from effbench_implementations.activation.dense_relu import DenseRelu, DenseReluServer
from effbench_implementations.activation.dense_relu_small import DenseReluSmall
from effbench_implementations.activation.inference import Layer, LayerInference
from effbench_implementations.activation.lazy_neurons import LazyNeurons, LazyNeuronsServer
from effbench_implementations.activation.mlp import Mlp
from effbench_implementations.activation.skipping import SkippingMLP, top
from effbench_implementations.activation.static_neurons import StaticNeurons
from effbench_implementations.activation.task import ActivationTask
from effbench_implementations.activation.top_k_mlp import TopK, TopKServer
from effbench_implementations.shared import text

from effbench import Budget, Data, Run, Wrong
from effbench.api.record import MAX_BYTES
from effbench.backends import get
from effbench.plan.origins import own_origin
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

SMALL = "next-bytes(d=16, heads=2, width=48, layers=2)"
SHAPES = [(64, 256, 1), (100, 333, 3), (1, 1, 1), (7, 5, 2), (256, 1024, 9)]
COMPILED = skipping.kernel()[0] is not None


@pytest.fixture(autouse=True)
def no_peaks(monkeypatch):
    """Memory is not asked for here, and a collection of garbage before each call takes a tenth of a second."""
    monkeypatch.setattr("effbench.measure.memory.reset_peak", lambda: None)


def weights(d, f, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    arrays = (rng.standard_normal((f, d)) / d**0.5, np.full(f, share - 0.5), rng.standard_normal((f, d)), rng.standard_normal(d))
    return [torch.from_numpy(a.astype(np.float32)) for a in arrays]


def tokens(n, d, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32))


def by_definition(x, up, up_bias, rows, bias, k=0):
    """numpy in float64, one token and one neuron after the other; ties to the first neuron."""
    x, up, up_bias, rows, bias = (t.double().numpy() for t in (x, up, up_bias, rows, bias))
    out = []
    for token in x:
        a = np.maximum(up @ token + up_bias, 0)
        kept = np.argsort(-a, kind="stable")[: k or len(a)]
        out.append(bias + sum(a[i] * rows[i] for i in kept))
    return np.array(out)


def agrees(found, answer):
    assert np.linalg.norm(found.numpy() - answer) <= 1e-5 * np.linalg.norm(answer)


def arms():
    return ["torch", *(["plain", "avx2", "avx512"] if COMPILED else [])]


def made(arm, w, k=0, **more):
    if arm == "torch":
        return SkippingMLP(*w, k=k, kernel_choice="torch")
    level = ("plain", "avx2", "avx512").index(arm)
    if level > skipping.kernel()[0].best_level():
        pytest.skip(f"this processor has no {arm}")
    return SkippingMLP(*w, k=k, level=level, **more)


@pytest.mark.parametrize("arm", arms())
@pytest.mark.parametrize(("d", "f", "n"), SHAPES)
def test_skipping_is_the_dense_layer(arm, d, f, n):
    w, x = weights(d, f), tokens(n, d)
    for k in {0, f, max(1, f // 8), 1}:
        agrees(made(arm, w, k)(x), by_definition(x, *w, k))


@pytest.mark.parametrize("arm", arms())
def test_the_oracle_rejects_what_is_broken(arm):
    w, x = weights(64, 256), tokens(3, 64)
    kernel = made(arm, w, 20)
    answer = by_definition(x, *w, 20)
    kernel.k = 19  # one neuron too few
    with pytest.raises(AssertionError):
        agrees(kernel(x), answer)
    shifted = made(arm, [*w[:2], w[2].roll(1, 0), w[3]], 20)  # rows of the wrong neurons
    with pytest.raises(AssertionError):
        agrees(shifted(x), answer)


@pytest.mark.skipif(not COMPILED, reason="no C compiler")
def test_the_kernel_never_touches_the_row_of_an_unused_neuron():
    w, x = weights(32, 128), tokens(1, 32)
    used = SkippingMLP(*w).used(x)[0]
    answer = by_definition(x, *w)
    w[2][~used] = float("nan")  # a product with zero would give NaN
    agrees(SkippingMLP(*w)(x), answer)
    assert torch.isnan(torch.nn.functional.linear(torch.relu(x @ w[0].T + w[1]), w[2].T, w[3])).all()
    assert torch.isnan(SkippingMLP(*w)(-x)).any(), "another token uses other rows"


@pytest.mark.parametrize("arm", arms())
@pytest.mark.parametrize("k", [0, 5])
def test_nan_is_not_skipped(arm, k):
    w, x = weights(32, 128), tokens(1, 32)
    x[0, 3] = float("nan")
    assert torch.isnan(made(arm, w, k)(x)).all()


@pytest.mark.skipif(not COMPILED, reason="no C compiler")
def test_ties_go_to_the_first_neurons_and_no_more_than_k_are_kept():
    layer = SkippingMLP(torch.zeros(8, 8), torch.tensor([1.0, 2, 2, 2, 0, -1, 2, 3]), torch.eye(8), torch.zeros(8), k=3)
    assert layer(torch.zeros(1, 8)).tolist() == [[0, 2, 2, 0, 0, 0, 0, 3]]


@pytest.mark.skipif(not COMPILED, reason="no C compiler")
def test_threads_share_out_the_columns():
    w, x = weights(100, 333), tokens(2, 100)
    layer = SkippingMLP(*w, threads=3)
    agrees(layer(x), by_definition(x, *w))
    layer.pool.shutdown()


def test_without_a_compiler_torch_takes_over_and_says_so(monkeypatch):
    monkeypatch.setattr(skipping, "kernel", lambda: (None, "no C compiler"))
    w, x = weights(64, 256), tokens(2, 64)
    layer = SkippingMLP(*w)
    assert (layer.how, layer.reason) == ("torch", "no C compiler")
    agrees(layer(x), by_definition(x, *w))
    out = exercise(LayerInference, LazyNeuronsServer, cases=("batch-1",), seconds=0.001)["batch-1", ()]
    assert out["serve.tally.compiled"]["value"] == 0


def test_weights_that_do_not_fit_are_refused():
    up, up_bias, rows, bias = weights(4, 8)
    with pytest.raises(ValueError, match="rows"):
        SkippingMLP(up, up_bias, rows.T, bias)


@pytest.mark.parametrize("k", [-1, 257])
def test_a_k_that_makes_no_sense_is_refused(k):
    with pytest.raises(ValueError, match=f"k={k}"):
        SkippingMLP(*weights(4, 256), k=k)
    with pytest.raises(ValueError, match=f"k={k}"):
        Mlp(4, 256, k=k)


# -- Top-k --------------------------------------------------------------------------------------------------------------


def test_top_k_of_all_is_relu_and_fewer_never_pass():
    torch.manual_seed(0)
    plain, all_of_them = Mlp(16, 64), Mlp(16, 64, k=64)
    all_of_them.load_state_dict(plain.state_dict())
    x = tokens(50, 16)
    assert torch.equal(plain(x), all_of_them(x))
    a = torch.relu(x @ plain.up.weight.T + plain.up.bias)
    for k in (1, 7, 40):
        kept = top(a, k)
        assert ((kept != 0).sum(1) <= k).all() and (kept.max(1).values == a.max(1).values).all()
        assert ((kept != 0).sum(1) == torch.minimum((a > 0).sum(1), torch.tensor(k))).all()
        assert (torch.where(kept != 0, kept - a, 0) == 0).all()


def test_gradients_pass_through_what_is_kept_only():
    torch.manual_seed(0)
    layer, x = Mlp(16, 64, k=8), tokens(1, 16)
    layer(x).square().sum().backward()
    used = layer.hidden(x)[0] != 0
    assert used.sum() == 8
    assert (layer.up.weight.grad[~used] == 0).all() and (layer.up.weight.grad[used].abs().sum(1) > 0).all()
    assert (layer.down.weight.grad[:, ~used] == 0).all()

    def straight_through(a, k):
        return a + (top(a, k) - a).detach()  # the broken variant: gradients of all

    a = torch.rand(1, 64, requires_grad=True)
    straight_through(a, 8).sum().backward()
    assert (a.grad[top(a.detach(), 8) == 0] != 0).all()


def test_a_new_layer_uses_half_of_its_neurons():
    torch.manual_seed(0)
    share = (Mlp(64, 1024).hidden(tokens(500, 64)) != 0).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.03)
    assert (Mlp(64, 1024, "gelu").hidden(tokens(500, 64)) != 0).float().mean().item() > 0.999


# -- the trained network ------------------------------------------------------------------------------------------------


def trained(arm, data=SMALL, steps=30, **settings):
    return exercise(ActivationTask, arm, data=data, budget=Budget(steps=steps), seconds=0.001, **settings)["window-1", ()]


def test_lazy_neurons_is_the_dense_network_in_fewer_flops():
    dense, lazy, small = (trained(arm) for arm in (DenseRelu, LazyNeurons, DenseReluSmall))
    for name in ("perplexity", "nonzero", "nonzero-1", "nonzero-2", "calibration-error", "perplexity-corrupted"):
        assert lazy[f"quality.{name}"]["value"] == pytest.approx(dense[f"quality.{name}"]["value"], rel=1e-4)
    assert lazy["serve.flops.useful"]["value"] < dense["serve.flops"]["value"] == lazy["serve.flops.dense"]["value"]
    layers = 64 * 2 * 4 * 16 * 48  # FLOPs of both layers, dense
    # Readings hold six digits, so a difference of two is good to 1e-4.
    share = lazy["serve.tally.active"]["value"] / (64 * 2 * 48)
    assert dense["serve.flops"]["value"] - lazy["serve.flops"]["value"] == pytest.approx(layers * (1 - share) / 2, rel=1e-4)
    assert small["serve.flops"]["value"] == pytest.approx(dense["serve.flops"]["value"] - layers * 23 / 48, rel=1e-4)
    assert dense["serve.flops"]["how"].startswith("formula, counter agrees")


def test_the_formula_of_skipping_is_what_the_counter_sees_where_it_can():
    for arm in (LazyNeurons, TopK):
        readings = trained(arm, steps=2, kernel="torch")
        assert readings["serve.flops"]["how"].startswith("formula, counter agrees"), readings["serve.flops"]
    for arm in (LazyNeuronsServer, TopKServer):
        for case in ("batch-1", "batch-8"):
            out = exercise(LayerInference, arm, cases=(case,), seconds=0.001, kernel="torch")[case, ()]
            assert out["serve.flops"]["how"].startswith("formula, counter agrees"), (case, out["serve.flops"])
            # Within the union of a batch zeros are multiplied.
            assert (out["serve.flops.useful"]["value"] < out["serve.flops"]["value"]) == (case == "batch-8")


def test_top_k_keeps_its_share_in_every_layer():
    readings = trained(TopK, divisor=16)
    for layer in (1, 2):
        assert 0 < readings[f"quality.nonzero-{layer}"]["value"] <= 3 / 48 + 1e-9
    assert readings["serve.tally.active"]["value"] <= 64 * 2 * 3
    assert trained(DenseGelu)["quality.nonzero"]["value"] > 0.999


def test_training_reaches_below_chance_and_the_initial_share_is_that_of_an_untrained_network():
    few, many = (trained(LazyNeurons, steps=steps, learning_rate=0.01) for steps in (1, 60))
    assert few["quality.nonzero-over-initial"]["value"] == pytest.approx(1, abs=0.1)
    assert many["quality.perplexity"]["value"] < 40 < few["quality.perplexity"]["value"] < 200  # 128 is chance


def given(noise=0.0, size="smoke", seed=0):
    args = {**ActivationTask.data[0].args, "noise": noise}
    return ActivationTask().given(Data("next-bytes", args), size, seed, {"text": text.standard_library(60_000)})


def test_label_noise_is_in_the_training_targets_only_and_the_same_for_every_arm():
    clean, noisy, again = given(), given(0.4), given(0.4)
    assert (clean.targets == clean.train).all() and (noisy.train == clean.train).all()
    assert (noisy.targets != clean.train).mean() == pytest.approx(0.4 * 127 / 128, abs=0.01)
    assert (noisy.targets == again.targets).all() and (noisy.validation == clean.validation).all()
    inputs, asked = training.pairs(noisy.train, noisy.targets, noisy, np.random.default_rng(0))
    assert (inputs[:, 1:] != asked[:, :-1]).mean() == pytest.approx(0.4, abs=0.06) and (asked[:, -1] == -100).all()
    inputs, asked = training.pairs(clean.train, clean.targets, clean, np.random.default_rng(0))
    assert (inputs[:, 1:] == asked[:, :-1]).all()
    with pytest.raises(ValueError, match="noise"):
        given(1.0)


def test_calibration_error_of_known_cases():
    confidence = np.array([0.95] * 100 + [0.55] * 100)
    right = np.concatenate((np.arange(100) < 95, np.arange(100) < 55))
    assert training.calibration_error(confidence, right) == pytest.approx(0, abs=1e-9)
    assert training.calibration_error(confidence, ~right) == pytest.approx((0.9 + 0.1) / 2)
    assert training.calibration_error(np.ones(4), np.zeros(4, bool)) == 1


def test_the_network_stored_is_the_network_loaded(tmp_path):
    found = []
    for seed in (0, 1):
        method = TopK()
        method.run = Run(backend=get("torch"), seed=seed)
        if not found:
            method.prepare(given())
            method.finish()
            method.save(tmp_path)
        else:
            method.load(tmp_path, given())
        found.append(method.predict(torch.arange(64)[None]))
    assert torch.equal(*found)


def test_a_record_of_six_layers_has_room():
    import json

    readings = trained(LazyNeurons, data="next-bytes(d=16, heads=2, width=48, layers=6)", steps=1)
    assert {f"quality.nonzero-{i}" for i in range(1, 7)} <= set(readings)
    assert len(json.dumps(readings)) < MAX_BYTES - 600  # the rest of the record


# -- the layer that is served -------------------------------------------------------------------------------------------

SERVERS = [DenseReluServer, LazyNeuronsServer, StaticNeurons, TopKServer]
TRAINED = "trained(d=16, heads=2, width=96, layers=2, layer=2)"


@pytest.mark.parametrize("data", ["drawn", TRAINED, TRAINED.replace(")", ", k=6)")])
@pytest.mark.parametrize("arm", SERVERS)
def test_every_server_answers_and_exact_ones_exactly(arm, data):
    out = exercise(LayerInference, arm, data=data, seconds=0.001)
    for case in ("batch-1", "batch-8"):
        error = out[case, ()]["quality.relative-error"]["value"]
        assert error < 1e-5 if arm.exact else 0 < error < 1 or "k=6" in data
    if data == "drawn":
        assert out["batch-8", ()]["quality.nonzero"]["value"] == pytest.approx(0.1, abs=0.01)


def test_flops_and_bytes_are_those_of_the_rows_used():
    dense, lazy = (exercise(LayerInference, arm, seconds=0.001)["batch-1", ()] for arm in (DenseReluServer, LazyNeuronsServer))
    # Readings hold six digits, so a difference of two is good to 1e-4.
    share = lazy["serve.tally.active"]["value"] / 1024
    assert dense["serve.flops"]["value"] == 4 * 256 * 1024
    assert lazy["serve.flops"]["value"] / dense["serve.flops"]["value"] == pytest.approx((1 + share) / 2)
    assert lazy["serve.bytes"]["value"] / dense["serve.bytes"]["value"] == pytest.approx((1 + share) / 2, rel=0.01)


def test_top_k_of_more_than_are_active_is_exact_and_of_less_is_not():
    few, many = (exercise(LayerInference, TopKServer, seconds=0.001, knobs=({"divisor": n},)) for n in (64, 4))
    assert many["batch-1", (("divisor", 4),)]["quality.relative-error"]["value"] < 1e-5
    assert few["batch-1", (("divisor", 64),)]["quality.relative-error"]["value"] > 0.1


def test_an_exact_method_that_drops_a_neuron_is_wrong():
    class Sloppy(LazyNeuronsServer):
        name = "sloppy"

        def place(self, layer, put):
            super().place(layer, put)
            self.served.k = 60

    with pytest.raises(Wrong, match="off by"):
        exercise(LayerInference, Sloppy, seconds=0.001)


def test_half_precision_on_a_cpu_is_served_by_the_fallback():
    out = exercise(LayerInference, LazyNeuronsServer, seconds=0.001, dtype="bfloat16", cases=("batch-1",))["batch-1", ()]
    assert out["serve.tally.compiled"]["value"] == 0 and out["quality.relative-error"]["value"] < 0.03


@pytest.mark.parametrize(
    ("task", "arm", "settings", "message"),
    [
        (LayerInference, LazyNeuronsServer, {"kernel": "cuda"}, "no kernel 'cuda'"),
        (LayerInference, StaticNeurons, {"fraction": 0.0}, "fraction=0.0"),
        (LayerInference, DenseReluServer, {"data": "drawn(nonzero=0.0)"}, "nonzero"),
        (LayerInference, DenseReluServer, {"data": "trained(layer=4)"}, "layer 1 to 3"),
        (ActivationTask, TopK, {"divisor": 0}, "divisor=0"),
        (ActivationTask, DenseReluSmall, {"fraction": 1.5}, "fraction=1.5"),
        (ActivationTask, DenseRelu, {"data": "next-bytes(layers=7)"}, "layers=7"),
    ],
)
def test_settings_that_make_no_sense_are_refused(task, arm, settings, message):
    more = {"budget": Budget(steps=1)} if task is ActivationTask else {}
    with pytest.raises(ValueError, match=message):
        exercise(task, arm, **more, **settings)


def test_unequal_flops_are_no_comparison():
    def record(method, flops):
        return {"method": method, "budget": {"steps": 1}, "readings": {"serve.flops": {"value": flops}}}

    for task, small, arm in ((ActivationTask, "dense-relu-small", "top-k-mlp"), (LayerInference, "static-neurons", "lazy-neurons")):
        assert task().unfair(record(small, 100.0), record(arm, 103.0)) == ""
        assert "fraction" in task().unfair(record(small, 100.0), record(arm, 120.0))
        assert task().unfair(record(small, 100.0), record("dense-relu", 200.0)) == ""


def test_many_tokens_are_multiplied_densely_on_a_gpu(monkeypatch):
    """Nobody would be skipped: the call counts as the dense layer."""
    w = weights(16, 48)
    served = SkippingMLP(*w, k=10, kernel_choice="torch")
    served.how = "triton"
    monkeypatch.setattr(skipping.skipping_kernels, "mlp", lambda *args: pytest.fail("asked the kernels"))
    x = torch.randn(17, 16)
    expected = SkippingMLP(*w, k=10, kernel_choice="torch")
    torch.testing.assert_close(served(x), expected(x))
    assert served.counts(x) == {"active": expected.counts(x)["active"], "union": 48.0, "rows": 17 * 48.0}
    assert served(x[:0]).shape == (0, 16)
    few = served.counts(x[:2])
    assert few["rows"] == 2 * few["union"] == expected.counts(x[:2])["rows"]


@pytest.mark.parametrize(
    ("width", "fraction", "kept"), [(2048, 0.55, 1152), (2048, 1.0, 2048), (1100, 1.0, 1100), (1000, 0.55, 550), (10, 0.01, 1)]
)
def test_a_cut_layer_has_a_width_that_products_like(width, fraction, kept):
    method = StaticNeurons(fraction=fraction)
    method.run = Run(backend=get("torch"))
    rng = np.random.default_rng(0)
    up, down, calibration = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (width, width, 4))
    method.build(Layer(up, np.zeros(width, np.float32), down, np.zeros(8, np.float32), calibration), method.run)
    assert method.kept == kept == len(method.up)


def test_the_registry_reads_the_area():
    found = Registry.read([own_origin()])
    assert not [problem for problem in found.problems if "activation" in problem]
    assert {"lazy-neurons", "top-k-mlp", "dense-relu"} <= set(found.methods_of("activation-sparsity"))
    assert {"lazy-neurons", "top-k-mlp", "dense-relu", "static-neurons"} == set(found.methods_of("sparse-mlp"))
