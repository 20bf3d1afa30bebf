"""Oracles of magnitude pruning. Each has a broken variant that it rejects."""

import numpy as np

# ruff: noqa: E402
import pytest

torch = pytest.importorskip("torch")
from effbench_implementations.compression import magnitude_pruning as mp
from effbench_implementations.compression.dense import Dense
from effbench_implementations.compression.magnitude_pruning import MagnitudePruning, choose, progress
from effbench_implementations.compression.task import Given
from effbench_implementations.shared import cnn
from torch.nn.utils import prune

from effbench import Run
from effbench.api.run import Allowance
from effbench.backends import get


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def material(seed=0):
    """Ten noisy 8x8 patterns: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    patterns, labels = rng.normal(size=(10, 1, 8, 8)), np.arange(512) % 10
    images = (patterns[labels] + rng.normal(size=(512, 1, 8, 8))).astype(np.float32)
    return Given(images, labels, images[:100], labels[:100], width=4, batch=64)


def built(cls=MagnitudePruning, *, steps=30, seed=0, **settings):
    given, method = material(), cls(**settings)
    method.run = run = Run(seed=seed, budget=Allowance(steps=steps), backend=get("torch"))
    assert sum(step.steps for step in method.build(given, run)) == steps
    return method


def total(net):
    return sum(kernel.numel() for kernel in net.kernels())


def zeros(net):
    return sum(int((kernel == 0).sum()) for kernel in net.kernels())


# What must hold of a finished pruning ------------------------------------------------------------------------------------


def assert_exact(method):
    """Sparsity within one weight, in the trained and in the served network, and no pruned bias, scale or shift."""
    target = method.sparsity * total(method.net)
    assert abs(zeros(method.net) - target) <= 1 and abs(zeros(method.served) - target) <= 1
    rest = [p for name, p in method.net.named_parameters() if p.ndim == 1 and not name.endswith("linear.weight")]
    assert all((p != 0).all() for p in rest)
    assert method.parameters() - method.nonzero() == zeros(method.served)


def assert_masked_stay_zero(method):
    """Masked weights are exactly 0.0 with no momentum left, also after two more steps of the optimiser with the mask applied."""
    for kernel, mask in zip(method.kernels, method.masks, strict=True):
        assert (kernel[~mask] == 0).all() and (kernel[mask] != 0).all()
        assert (method.optimiser.state[kernel]["momentum_buffer"][~mask] == 0).all()


def assert_guarded(masks):
    kept = [float(mask.float().mean()) for mask in masks]
    assert kept[0] >= 0.5 and kept[-1] >= 0.5 and min(kept) >= 0.01


@pytest.mark.parametrize("schedule", ["gradual", "one-shot", "iterative"])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95])
def test_sparsity_is_exact_and_masked_weights_stay_zero(schedule, scope, sparsity):
    method = built(schedule=schedule, scope=scope, sparsity=sparsity, interval=3)
    assert_exact(method)
    assert_masked_stay_zero(method)
    assert_guarded(method.masks)


def test_random_control_is_exact_too():
    method = built(saliency="random", interval=3)
    assert_exact(method)
    assert_masked_stay_zero(method)


@pytest.mark.parametrize("steps", [2, 3, 5, 21])
def test_short_budgets_still_reach_the_target(steps):
    assert_exact(built(steps=steps))


class AppliedOnce(MagnitudePruning):
    """Broken: masks only when they change, so training revives what was removed."""

    def renew(self, sparsity):
        super().renew(sparsity)
        super().apply()

    def apply(self):
        pass


class MomentumKept(MagnitudePruning):
    """Broken: the weight is cleared, its momentum is not."""

    @torch.no_grad()
    def apply(self):
        for kernel, mask in zip(self.kernels, self.masks):
            kernel.mul_(mask)


class NormsPruned(MagnitudePruning):
    """Broken: ranks the scales and shifts of batch norm with the weights, and prunes the smallest."""

    def start(self, net, *rest):
        super().start(net, *rest)
        self.vectors = [p for p in net.parameters() if p.ndim == 1]

    @torch.no_grad()
    def apply(self):
        super().apply()
        for vector in self.vectors:
            vector.mul_(vector.abs() > vector.abs().quantile(0.3 * self.level))


class Overshooting(MagnitudePruning):
    """Broken: a threshold with ties, and no guards."""

    @torch.no_grad()
    def renew(self, sparsity):
        self.level = sparsity
        values = torch.cat([kernel.abs().flatten() for kernel in self.kernels])
        threshold = values.sort().values[min(int((sparsity + 0.01) * len(values)), len(values) - 1)]
        self.masks = [kernel.abs() > threshold for kernel in self.kernels]


@pytest.mark.parametrize(
    "broken, oracle",
    [
        (AppliedOnce, assert_exact), (AppliedOnce, assert_masked_stay_zero), (MomentumKept, assert_masked_stay_zero),
        (NormsPruned, assert_exact), (Overshooting, assert_exact),
    ],
)  # fmt: skip
def test_broken_variants_are_rejected(broken, oracle):
    with pytest.raises(AssertionError):
        oracle(built(broken, interval=3))


# The schedule ------------------------------------------------------------------------------------------------------------


def assert_cubic(share, final=0.8):
    """Zhu & Gupta eq. 1 with initial sparsity 0 at the beginning, the middle and the end."""
    for time, expected in ((0.0, 0.0), (0.5, final - final / 8), (1.0, final), (0.25, final - final * 0.75**3), (7.0, final)):
        assert final * share("gradual", time, final) == pytest.approx(expected, abs=1e-12)


def test_schedules():
    assert_cubic(progress)
    with pytest.raises(AssertionError):
        assert_cubic(lambda schedule, time, target: min(time, 1.0))
    assert [progress("one-shot", time, 0.8) for time in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    left = [1 - 0.9 * progress("iterative", time, 0.9) for time in (0, 0.25, 0.5, 0.75, 1)]
    assert left == pytest.approx([0.1 ** (i / 5) for i in range(1, 6)])


def test_levels_of_a_build_follow_the_schedule():
    levels = {}

    class Watched(MagnitudePruning):
        def renew(self, sparsity):
            super().renew(sparsity)
            levels.setdefault(self.schedule, []).append(round(sparsity, 12))

    for schedule in mp.SCHEDULES:
        built(Watched, schedule=schedule, steps=50, begin=0.2, end=0.8, interval=10)
    assert levels["gradual"] == [round(0.8 * (1 - (1 - t / 3) ** 3), 12) for t in (1, 2, 3)]
    assert levels["one-shot"] == [0.8]
    assert len(levels["iterative"]) == 5 and levels["iterative"][-1] == 0.8


# The choice of weights ---------------------------------------------------------------------------------------------------


def random_scores(seed=0, shapes=((8, 1, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3), (10, 16))):
    draws = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draws) for shape in shapes]


def test_global_choice_is_that_of_a_sort_where_no_guard_binds():
    scores = random_scores()
    masks = choose(scores, 0.3, "global")
    flat, kept = torch.cat([s.flatten() for s in scores]), torch.cat([m.flatten() for m in masks])
    assert flat[~kept].max() < flat[kept].min() and int((~kept).sum()) == round(0.3 * len(flat))


def test_global_choice_is_that_of_torch():
    modules = [torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 8, 3), torch.nn.Linear(64, 10)]
    scores = [module.weight.detach().abs() for module in modules]
    masks = choose(scores, 0.3, "global")
    prune.global_unstructured([(module, "weight") for module in modules], prune.L1Unstructured, amount=0.3)
    for module, mask in zip(modules, masks, strict=True):
        assert torch.equal(module.weight_mask.bool(), mask)


def test_layer_choice_is_even_and_ties_do_not_overshoot():
    scores = random_scores()
    shares = [1 - float(mask.float().mean()) for mask in choose(scores, 0.4, "layer")]
    assert shares == pytest.approx([0.4] * 4, abs=1 / 72)  # one weight of the smallest layer
    for scope in ("global", "layer"):
        tied = choose([torch.zeros_like(score) for score in scores], 0.4, scope)
        assert sum(int((~mask).sum()) for mask in tied) == round(0.4 * sum(score.numel() for score in scores))


def test_guards_hold_against_a_layer_of_small_weights(monkeypatch):
    scores = random_scores()
    scores[1] *= 1e-6
    scores[0] *= 1e-3
    masks = choose(scores, 0.6, "global")
    assert_guarded(masks)
    assert int((~masks[1]).sum()) == scores[1].numel() - int(np.ceil(0.01 * scores[1].numel()))
    with pytest.raises(ValueError, match="out of reach"):
        choose(scores, 0.999, "global")
    monkeypatch.setattr(mp, "KEPT", 0.0)
    monkeypatch.setattr(mp, "PROTECTED", 1.0)
    with pytest.raises(AssertionError):
        assert_guarded(choose(scores, 0.6, "global"))


# Equalities --------------------------------------------------------------------------------------------------------------


def assert_same(one, two):
    images = torch.from_numpy(material(1).train_images)
    assert torch.equal(one.predict(images), two.predict(images))


def test_sparsity_zero_is_dense_training_bit_by_bit():
    assert_same(built(sparsity=0.0), built(Dense))
    with pytest.raises(AssertionError):
        assert_same(built(sparsity=0.01), built(Dense))


@pytest.mark.parametrize("cls", [Dense, MagnitudePruning])
def test_saved_and_loaded_network_answers_bit_by_bit(cls, tmp_path):
    one, two = built(cls), cls()
    one.save(tmp_path)
    two.run = one.run
    two.load(tmp_path, material())
    assert_same(one, two)
    assert one.nonzero() == two.nonzero() and one.flops("build", None, {}) == two.flops("build", None, {})
    n = one.parameters()
    analytic = 4 * n if cls is Dense else n / 8 + 4 * one.nonzero()
    assert analytic <= one.folder_bytes(tmp_path) <= analytic + 1000


def test_damaged_file_is_refused(tmp_path):
    method = built(steps=4)
    arrays = method.encode(cnn.to_vector(method.served))
    np.savez(tmp_path / "network.npz", **(arrays | {"values": arrays["values"][1:]}))
    with pytest.raises(ValueError, match="damaged"):
        method.load(tmp_path, material())


@pytest.mark.parametrize(
    "settings", [{"sparsity": 1.0}, {"sparsity": -0.1}, {"schedule": "cubic"}, {"scope": "row"}, {"begin": 0.9}, {"interval": 0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError):
        built(steps=4, **settings)
