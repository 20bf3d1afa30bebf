"""The autoencoder task, its first-order arms and Shampoo. LocoProp has a file of its own."""

import math
import types

import numpy as np
import pytest
import torch
from effbench_implementations.training import shampoo as shampoo_file
from effbench_implementations.training import task as task_file
from effbench_implementations.training.adam import Adam
from effbench_implementations.training.autoencoder import Autoencoder
from effbench_implementations.training.locoprop import LocoPropM, LocoPropS
from effbench_implementations.training.rmsprop import RmsProp
from effbench_implementations.training.sgd import SgdMomentum
from effbench_implementations.training.shampoo import Shampoo, inverse_fourth_root
from effbench_implementations.training.task import AutoencoderTraining, Given, entropy_floor, layer_sizes, schedule

from effbench import Budget, DataError, Run, Wrong
from effbench.api.run import Allowance
from effbench.backends import get
from effbench.measure.flops import count
from effbench.plan.registry import Registry
from effbench.run.exercise import exercise

METHODS = [SgdMomentum, Adam, RmsProp, LocoPropS, LocoPropM, Shampoo]
SIZES = (6, 5, 3, 5, 6)


@pytest.fixture(autouse=True)
def digits(monkeypatch):
    """Pictures that need no cache: blobs at 64 pixels, 0..16, as many as scikit-learn's digits."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    codes, ways = rng.normal(size=(1797, 4)), rng.normal(size=(4, 64))
    pictures = np.round(16 / (1 + np.exp(-codes @ ways)))
    monkeypatch.setattr(task_file, "dataset", lambda name: {"images": pictures})


def lend(**budget):
    return Run(dtype="float64", budget=Allowance(**budget), backend=get("torch"))


def small_given(rows=40, batch=20):
    images = np.random.default_rng(3).uniform(0, 1, (rows, SIZES[0])).astype(np.float32)
    return Given(images, SIZES, batch, 0, entropy_floor(images))


def trained(kind, steps, given=None, **settings):
    method = kind(**settings)
    method.run, given = lend(steps=steps), given or small_given()
    for _ in method.build(given, method.run):
        pass
    return method


# -- the task -----------------------------------------------------------------------------------------------------------


def test_entropy_floor_is_the_least_cross_entropy():
    assert entropy_floor(np.array([[0.0, 1.0, 1.0]])) == 0.0
    assert entropy_floor(np.array([[0.5, 0.5, 0.0]])) == pytest.approx(2 * math.log(2), rel=1e-12)
    x = np.random.default_rng(0).uniform(0, 1, (30, 6))
    floor = entropy_floor(x)
    for shift in (-0.01, 0.01):
        p = np.clip(x + shift, 1e-9, 1 - 1e-9)
        assert floor < -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1).mean()


@pytest.mark.parametrize("steps", [1, 2, 20, 360, 1367])
def test_schedule_warms_up_and_decays_and_never_stops(steps):
    factors = np.array([schedule(step, steps) for step in range(steps)])
    assert factors.max() == 1.0
    assert factors.min() > 0
    top = int(factors.argmax())
    assert top + 1 == max(1, round(0.05 * steps))
    assert np.all(np.diff(factors[: top + 1]) > 0)
    assert np.all(np.diff(factors[top + 1 :]) < 0)


def test_every_arm_gets_the_same_weights_and_batches_and_an_epoch_shows_each_row_once():
    given = small_given()
    first, second = [list(given.batches(lend(), 5)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    epoch = torch.cat(first[:2]).numpy().astype(np.float32)
    assert np.array_equal(np.sort(epoch, 0), np.sort(given.images, 0))
    assert not torch.equal(first[0], first[2])
    nets = [given.network(lend()) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters, nets[1].parameters))
    other = Given(given.images, SIZES, 20, 1, given.floor)
    assert not torch.equal(nets[0].weights[0], other.network(lend()).weights[0])


def test_train_and_test_rows_are_disjoint_and_complete():
    task = AutoencoderTraining()
    data = task.data[0]
    given, hidden = task.given(data, "smoke", 0, {}), task.hidden(data, "smoke", 0, {})
    assert given.images.shape == (1500, 64)
    assert hidden["images"].shape == (297, 64)
    assert given.sizes == (64, 256, 128, 64, 8, 64, 128, 256, 64)
    rows = {row.tobytes() for row in given.images}
    assert len(rows) == 1500
    assert not rows & {row.tobytes() for row in hidden["images"]}
    assert layer_sizes("digits-autoencoder", 0.5) == (64, 128, 64, 32, 8, 32, 64, 128, 64)


def test_bad_input_is_refused_with_a_reason():
    task, data = AutoencoderTraining(), AutoencoderTraining.data[0]
    for args in ({"batch": 2000, "width": 1}, {"batch": 0, "width": 1}, {"batch": 250, "width": 0}):
        with pytest.raises(DataError):
            task.given(type(data)(data.name, args), "smoke", 0, {})
    method = Adam()
    method.run = lend(time=3.0)
    with pytest.raises(ValueError, match="steps"):
        list(method.build(small_given(), method.run))
    method.run = Run(dtype="bfloat16", backend=get("torch"))
    assert "bfloat16" in method.skip(small_given())
    method.run = lend(samples=10)
    assert "budget" in method.skip(small_given())
    method.run = lend(samples=50)
    assert method.planned_steps(small_given()) == 2


def test_a_diverged_network_is_wrong_and_not_a_loss():
    method = trained(Adam, 1)
    method.net.weights[0][0, 0] = math.nan
    with pytest.raises(Wrong, match="diverged"):
        AutoencoderTraining().score(method, small_given(), None, None, [])


def test_unlike_budgets_are_not_compared():
    task = AutoencoderTraining()
    assert task.unfair({"budget": {"steps": 360}}, {"budget": {"steps": 360}}) == ""
    assert "360" in task.unfair({"budget": {"steps": 360}}, {"budget": {"steps": 361}})


# -- the network --------------------------------------------------------------------------------------------------------


def passes_agree_with_autograd(net):
    x = torch.from_numpy(np.random.default_rng(5).uniform(0, 1, (20, SIZES[0])))
    leaves = [p.clone().requires_grad_() for p in net.parameters]
    a = x
    for m in range(4):
        a = a @ leaves[m] + leaves[4 + m]
        a = torch.tanh(a) if m in (0, 2) else a
    torch.nn.functional.binary_cross_entropy_with_logits(a, x, reduction="sum").div(len(x)).backward()
    net.back_propagate(x)
    for mine, theirs in zip(net.parameters, leaves):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-12)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(a, x, reduction="none").sum(1)
    torch.testing.assert_close(net.losses(x), expected.detach(), rtol=0, atol=1e-12)


def test_both_passes_by_hand_agree_with_autograd():
    net = small_given().network(lend())
    assert net.transfers == ["tanh", "identity", "tanh", "sigmoid"]
    passes_agree_with_autograd(net)


def test_a_bottleneck_with_a_transfer_function_is_found():
    net = small_given().network(lend())
    net.transfers[1] = "tanh"
    with pytest.raises(AssertionError):
        passes_agree_with_autograd(net)


# -- the arms -----------------------------------------------------------------------------------------------------------

REFERENCES = [
    (SgdMomentum, {}, lambda p, m: torch.optim.SGD(p, lr=m.lr, momentum=m.momentum, nesterov=m.nesterov)),
    (SgdMomentum, {"nesterov": False}, lambda p, m: torch.optim.SGD(p, lr=m.lr, momentum=m.momentum)),
    (Adam, {}, lambda p, m: torch.optim.Adam(p, lr=m.lr, betas=(m.beta1, m.beta2))),
    (RmsProp, {}, lambda p, m: torch.optim.RMSprop(p, lr=m.lr, momentum=m.momentum, alpha=m.decay)),
]


@pytest.mark.parametrize(("kind", "settings", "reference"), REFERENCES)
@pytest.mark.parametrize("scheduled", [True, False])
def test_first_order_arms_equal_the_library_under_autograd(kind, settings, reference, scheduled):
    given, steps = small_given(), 6
    mine = trained(kind, steps, given, **settings)
    net = given.network(lend())
    leaves = [p.requires_grad_() for p in net.parameters]
    optimiser = reference(leaves, mine)
    for step, batch in enumerate(given.batches(lend(), steps)):
        optimiser.param_groups[0]["lr"] = mine.lr * (schedule(step, steps) if scheduled else 1.0)
        optimiser.zero_grad()
        net.losses(batch).mean().backward()
        optimiser.step()
    near = all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(mine.net.parameters, leaves))
    assert near == scheduled  # without the schedule it is another method


def full_rank_step():
    """The direction of Shampoo's first step on a square matrix of full rank, without a ridge."""
    net = types.SimpleNamespace(parameters=[torch.zeros(4, 4).double()], weights=[torch.zeros(4, 4).double()])
    method = Shampoo(ridge=0.0)
    method.start(net, 1)
    method.step = 1
    gradient = torch.from_numpy(np.random.default_rng(2).normal(size=(4, 4)))
    adam = gradient.sign()
    return gradient, adam, method.precondition(0, gradient, adam)


def first_step_is_the_polar_factor():
    gradient, adam, move = full_rank_step()
    u, _, v = torch.linalg.svd(gradient)
    torch.testing.assert_close(move / move.norm(), (u @ v) / 2.0, rtol=0, atol=1e-6)  # an orthogonal 4 x 4 has norm 2
    assert float(move.norm()) == pytest.approx(float(adam.norm()), rel=1e-10)


def test_first_step_of_shampoo_is_the_polar_factor_with_adams_length():
    first_step_is_the_polar_factor()


def test_a_square_root_instead_of_a_fourth_root_is_found(monkeypatch):
    monkeypatch.setattr(shampoo_file, "inverse_fourth_root", lambda m, r: inverse_fourth_root(m, r) @ inverse_fourth_root(m, r))
    with pytest.raises(AssertionError):
        first_step_is_the_polar_factor()


def test_inverse_fourth_root():
    a = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 6)))
    matrix = a @ a.T
    root = inverse_fourth_root(matrix, 0.0)
    torch.testing.assert_close(torch.linalg.matrix_power(root, 4) @ matrix, torch.eye(6).double(), rtol=0, atol=1e-8)
    assert torch.isfinite(inverse_fourth_root(torch.zeros(3, 3), 1e-4)).all()


@pytest.mark.parametrize("kind", METHODS)
def test_flops_formula_agrees_with_the_counter(kind):
    given, steps = small_given(), 13
    method = kind()
    method.run = lend(steps=steps)
    counted = count(lambda: list(method.build(given, method.run)), "torch").executed
    assert method.flops("build", None, {}).executed == pytest.approx(counted, rel=0.01)
    assert method.flops("serve", None, {}) is None
    # A broken formula that forgets that nobody needs the input gradient of the first layer is off by more than that.
    forgotten = counted + steps * 2.0 * given.batch * SIZES[0] * SIZES[1]
    assert method.flops("build", None, {}).executed != pytest.approx(forgotten, rel=0.01)


@pytest.mark.parametrize("kind", METHODS)
def test_saved_networks_come_back(kind, tmp_path):
    given = small_given()
    method = trained(kind, 3, given)
    method.save(tmp_path)
    again = kind()
    again.run = lend(steps=3)
    again.load(tmp_path, given)
    assert np.array_equal(method.losses(given.images), again.losses(given.images))
    assert again.flops("build", None, {}) == method.flops("build", None, {})
    assert again.parameters() == sum(p.numel() for p in again.net.parameters)


# -- through the engine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", METHODS)
def test_smoke(kind):
    found = exercise(AutoencoderTraining, kind, budget=Budget(steps=20), data="digits-autoencoder(width=0.25, batch=100)")
    losses = found["curve"]["train-loss"]
    assert len(losses) == 20
    assert 0 < losses[-1] < losses[0]
    assert found["quality"]["quality.train-loss"]["value"] == pytest.approx(losses[-1], rel=1e-4)
    assert found["quality"]["quality.test-loss"]["value"] > 0
    assert found["build"]["build.steps"]["value"] == 20
    assert found["build"]["build.samples"]["value"] == 2000
    assert found["notes"] == []


def test_equal_flops_give_first_order_arms_their_steps():
    given = AutoencoderTraining().given(AutoencoderTraining.data[0], "smoke", 0, {})
    loco, first = LocoPropM().step_flops(given), Adam().step_flops(given)
    assert loco / first == pytest.approx(3.8, rel=0.01)
    found = exercise(AutoencoderTraining, Adam, budget=Budget(flops=5 * loco))
    assert found["build"]["build.steps"]["value"] == math.floor(5 * loco / first)


def test_one_seed_gives_one_network():
    runs = [
        exercise(AutoencoderTraining, RmsProp, budget=Budget(steps=3), data="digits-autoencoder(width=0.25, batch=100)", seed=seed)
        for seed in (0, 0, 1)
    ]
    values = [run["quality"]["quality.train-loss"]["value"] for run in runs]
    assert values[0] == values[1] != values[2]


def test_registry_reads_the_area():
    registry = Registry.read()
    assert registry.problems == []
    methods = registry.methods_of("autoencoder-training")
    assert {kind.name for kind in METHODS} <= set(methods)
    assert {name for name, info in methods.items() if info.claims} == {"locoprop-m"}
    files = {path.name for path in registry.closure(methods["adam"].file.absolute)}
    assert {"adam.py", "task.py", "autoencoder.py", "formulas.py"} <= files
    for info in methods.values():
        lr = info.settings["lr"].tune
        assert lr.high / lr.low == pytest.approx(100)  # the same width for all: six draws are worth the same
        assert math.sqrt(lr.high * lr.low) == pytest.approx(info.settings["lr"].default)


def test_network_is_the_one_of_the_notebook():
    assert layer_sizes("fashion-mnist-autoencoder", 1.0) == (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    net = Autoencoder.initial(layer_sizes("fashion-mnist-autoencoder", 0.05), np.random.default_rng(0), lend())
    assert net.transfers == ["tanh", "tanh", "tanh", "identity", "tanh", "tanh", "tanh", "sigmoid"]
