"""LocoProp against its algebra, in float64. Every oracle also meets deliberately broken variants and must reject them."""

import types

import numpy as np
import pytest
import torch
from effbench_implementations.training.autoencoder import Autoencoder
from effbench_implementations.training.formulas import back_propagation_flops
from effbench_implementations.training.locoprop import LocoPropM, LocoPropS
from torch.utils.flop_counter import FlopCounterMode

SIZES = (6, 5, 3, 5, 6)
ROWS = 20
RUN = types.SimpleNamespace(put=lambda array: torch.from_numpy(np.array(array)), dtype="float64")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def network(seed=0):
    return Autoencoder.initial(SIZES, np.random.default_rng(seed), RUN)


def images(seed=1):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 1, (ROWS, SIZES[0])))


def joined(net):
    """[W; b] of every layer, as the rows of ones in Y would have it."""
    return [torch.cat([w, b[None]]).clone() for w, b in zip(net.weights, net.biases)]


def with_ones(y):
    return torch.cat([y, torch.ones(len(y), 1, dtype=y.dtype)], 1)


def slope(net, m, a):
    """f'_m at a."""
    f = net.transfer(m, a)
    return {"identity": torch.ones_like(a), "tanh": 1 - f * f, "sigmoid": f * (1 - f)}[net.transfers[m]]


def plain(kind, **settings):
    """The technique with plain gradient descent as its inner optimiser."""

    class Plain(kind):
        def start(self, net, steps):
            self.optimiser = torch.optim.SGD(net.parameters, lr=self.lr)

    return Plain(**settings)


def broken(kind, bug):
    """The technique rewritten line by line, with one mistake; bug "" is the rewrite without any."""

    class Broken(kind):
        def update(self, net, batch, factor):
            y, a = net.forward(batch)
            gamma = self.gamma_per_sample * (1 if bug == "gamma of the whole batch" else len(batch))
            signals = net.signals(y)
            targets = [self.target(y, a, m, gamma * g) for m, g in enumerate(signals)]
            if bug == "layers see updated inputs":
                return self.one_after_the_other(net, y, a, targets, factor)
            for k in range(self.inner):
                if k and bug == "targets recomputed":
                    y, a = net.forward(batch)
                    targets = [self.target(y, a, m, gamma * g) for m, g in enumerate(net.signals(y))]
                a = [torch.addmm(net.biases[m], y[m], net.weights[m]) for m in range(len(targets))]
                residuals = [self.residual(net, m, a[m], targets[m]) for m in range(len(targets))]
                if bug == "slope in the residual":
                    residuals = [r * slope(net, m, a[m]) for m, r in enumerate(residuals)]
                if bug == "mean over the batch":
                    residuals = [r / len(batch) for r in residuals]
                net.set_gradients(net.gradients(y[:-1], residuals))
                fade = 1.0 if bug == "no fading" else max(1.0 - k / self.inner, 0.25)
                self.optimiser.param_groups[0]["lr"] = self.lr * factor * fade
                self.optimiser.step()

        def one_after_the_other(self, net, y, a, targets, factor):
            x = y[0]
            for m in range(len(targets)):
                net.set_gradients([None] * len(net.parameters))
                for k in range(self.inner):
                    residual = self.residual(net, m, torch.addmm(net.biases[m], x, net.weights[m]), targets[m])
                    net.weights[m].grad, net.biases[m].grad = x.T @ residual, residual.sum(0)
                    self.optimiser.param_groups[0]["lr"] = self.lr * factor * max(1.0 - k / self.inner, 0.25)
                    self.optimiser.step()
                x = net.transfer(m, torch.addmm(net.biases[m], x, net.weights[m]))

    return Broken


def step(method, net, batch, times=1):
    method.start(net, times)
    for _ in range(times):
        method.update(net, batch, 1.0)
    return net


# -- the oracles: each takes a class (LocoPropS, LocoPropM or a broken one) and asserts ---------------------------------


def one_inner_step_is_back_propagation(kind, rate=0.3, gamma=0.07):
    net, batch = network(), images()
    parameters = [p.clone().requires_grad_() for p in net.parameters]
    half = len(parameters) // 2
    Autoencoder(parameters[:half], parameters[half:]).losses(batch).mean().backward()
    step(plain(kind, lr=rate, gamma_per_sample=gamma, inner=1), net, batch)
    for mine, before in zip(net.parameters, parameters):
        expected = before.detach() - rate * gamma * ROWS * before.grad
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)


def inner_steps_follow_the_closed_form(kind, rate=0.01, gamma=0.2, inner=7):
    """S: W_K = W - gamma (I - prod_k (I - eta_k Y'Y)) (Y'Y)^+ Y'G, for every layer from the inputs before the step."""
    net, batch = network(), images()
    y, _ = net.forward(batch)
    signals, before = net.signals(y), joined(net)
    step(plain(kind, lr=rate, gamma_per_sample=gamma, inner=inner), net, batch)
    for m, after in enumerate(joined(net)):
        inputs = with_ones(y[m])
        gram, eye = inputs.T @ inputs, torch.eye(inputs.shape[1], dtype=torch.float64)
        left = eye
        for k in range(inner):
            left = left @ (eye - rate * max(1 - k / inner, 0.25) * gram)
        expected = before[m] - gamma * ROWS * (eye - left) @ torch.linalg.pinv(gram) @ inputs.T @ signals[m]
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-8)


def many_pulled_steps_are_foof(kind, pull=5.0, gamma=0.2):
    """S with a ridge of weight `pull` on W - W_t, solved to the end: W - gamma (Y'Y + pull I)^-1 Y'G."""

    class Pulled(kind):
        def start(self, net, steps):
            start = [p.clone() for p in net.parameters]

            class Sgd(torch.optim.SGD):
                def step(self):
                    for p, p0 in zip(net.parameters, start):
                        p.grad = p.grad + pull * (p - p0)
                    super().step()

            self.optimiser = Sgd(net.parameters, lr=self.lr)

    net, batch = network(), images()
    y, _ = net.forward(batch)
    signals, before = net.signals(y), joined(net)
    step(Pulled(lr=0.015, gamma_per_sample=gamma, inner=450), net, batch)
    for m, after in enumerate(joined(net)):
        inputs = with_ones(y[m])
        gram = inputs.T @ inputs + pull * torch.eye(inputs.shape[1], dtype=torch.float64)
        torch.testing.assert_close(
            after, before[m] - gamma * ROWS * torch.linalg.solve(gram, inputs.T @ signals[m]), rtol=0, atol=1e-8
        )


def objective(net, m, inputs, layer, target):
    """The local matching loss of M, up to a constant: sum of F(a) - T a, with F' = f."""
    a = with_ones(inputs) @ layer
    softplus = torch.nn.functional.softplus
    integral = {"identity": a * a / 2, "tanh": a + softplus(-2 * a) - np.log(2), "sigmoid": softplus(a)}[net.transfers[m]]
    return float((integral - target * a).sum())


def residual_is_the_gradient_of_the_matching_loss(kind):
    """Central differences of the local objective at weights away from the start, against the second inner gradient Y'R."""
    seen = []

    class Watched(kind):
        def start(self, net, steps):
            class Sgd(torch.optim.SGD):
                def step(self):
                    seen.append((joined(net), [torch.cat([w.grad, b.grad[None]]) for w, b in zip(net.weights, net.biases)]))
                    super().step()

            self.optimiser = Sgd(net.parameters, lr=self.lr)

    net, batch, gamma = network(), images(), 0.5
    y, _ = net.forward(batch)
    targets = [y[m + 1] - gamma * ROWS * g for m, g in enumerate(net.signals(y))]
    step(Watched(lr=0.02, gamma_per_sample=gamma, inner=6), net, batch)
    layers, gradients = seen[1]
    for m, layer in enumerate(layers):
        for place in [(0, 0), (2, 1), (layer.shape[0] - 1, 2)]:
            up, down = layer.clone(), layer.clone()
            up[place] += 1e-5
            down[place] -= 1e-5
            slope = (objective(net, m, y[m], up, targets[m]) - objective(net, m, y[m], down, targets[m])) / 2e-5
            assert abs(slope - float(gradients[m][place])) < 1e-6
    for m in range(len(layers)):
        values = [objective(net, m, y[m], layers[m], targets[m]) for layers, _ in seen]
        assert np.all(np.diff(values) <= 1e-12)


def layers_are_independent(kind):
    """Layer by layer in reverse order, each with an RMSProp of its own that persists over three batches: the same bits."""
    net, reference = network(), network()
    settings = {"lr": 0.003, "gamma_per_sample": 0.4, "inner": 4, "momentum": 0.9}
    method, helper = kind(**settings), LocoPropM(**settings)
    rms = [
        torch.optim.RMSprop([w, b], lr=1.0, alpha=method.decay, momentum=0.9, eps=1e-5)
        for w, b in zip(reference.weights, reference.biases)
    ]
    method.start(net, 3)
    for seed in range(3):
        batch, factor = images(seed), 1.0 - seed / 4
        method.update(net, batch, factor)
        y, _ = reference.forward(batch)
        moves = [0.4 * ROWS * g for g in reference.signals(y)]
        for m in reversed(range(len(moves))):
            target, residual = y[m + 1] - moves[m], moves[m]
            for k in range(4):
                if k:
                    a = torch.addmm(reference.biases[m], y[m], reference.weights[m])
                    residual = helper.residual(reference, m, a, target)
                reference.weights[m].grad, reference.biases[m].grad = y[m].T @ residual, residual.sum(0)
                rms[m].param_groups[0]["lr"] = 0.003 * factor * max(1 - k / 4, 0.25)
                rms[m].step()
    for mine, theirs in zip(net.parameters, reference.parameters):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0 if kind is LocoPropM else 1e-10)


CASES = [
    (one_inner_step_is_back_propagation, LocoPropS, ["gamma of the whole batch", "mean over the batch", "slope in the residual"]),
    (one_inner_step_is_back_propagation, LocoPropM, ["gamma of the whole batch", "mean over the batch", "slope in the residual"]),
    (
        inner_steps_follow_the_closed_form,
        LocoPropS,
        [
            "targets recomputed",
            "layers see updated inputs",
            "mean over the batch",
            "slope in the residual",
            "gamma of the whole batch",
            "no fading",
        ],
    ),
    (many_pulled_steps_are_foof, LocoPropS, ["targets recomputed", "mean over the batch", "slope in the residual"]),
    (
        residual_is_the_gradient_of_the_matching_loss,
        LocoPropM,
        ["slope in the residual", "mean over the batch", "targets recomputed"],
    ),
    (
        layers_are_independent,
        LocoPropM,
        ["layers see updated inputs", "targets recomputed", "slope in the residual", "gamma of the whole batch", "no fading"],
    ),
]


@pytest.mark.parametrize(("oracle", "kind"), [case[:2] for case in CASES])
def test_holds(oracle, kind):
    oracle(kind)
    oracle(broken(kind, ""))  # the rewrite is right, so what rejects its bugs is the bug


@pytest.mark.parametrize(("oracle", "kind", "bug"), [(o, kind, bug) for o, kind, bugs in CASES for bug in bugs])
def test_rejects(oracle, kind, bug):
    with pytest.raises(AssertionError):
        oracle(broken(kind, bug))


@pytest.mark.parametrize("inner", [1, 5])
def test_m_with_identity_transfer_is_s(inner):
    nets = network(), network()
    for net, kind in zip(nets, (LocoPropS, LocoPropM)):
        net.transfer = lambda m, a: a  # signals still use the tanh slopes: the same for both
        step(kind(gamma_per_sample=0.3, inner=inner), net, images(), times=3)
    for s, m in zip(nets[0].parameters, nets[1].parameters):
        assert torch.equal(s, m)


def test_s_and_m_differ_after_more_than_one_inner_step():
    nets = [step(kind(gamma_per_sample=0.3, inner=2), network(), images()) for kind in (LocoPropS, LocoPropM)]
    assert not torch.equal(nets[0].weights[0], nets[1].weights[0])


@pytest.mark.parametrize("kind", [LocoPropS, LocoPropM])
@pytest.mark.parametrize("inner_optimiser", ["sgd", "rmsprop"])
def test_without_a_move_nothing_moves(kind, inner_optimiser):
    settings = {"lr": 0.1, "gamma_per_sample": 0.0, "inner": 5}
    method = plain(kind, **settings) if inner_optimiser == "sgd" else kind(**settings)
    net = step(method, network(), images(), times=2)
    for mine, before in zip(net.parameters, network().parameters):
        torch.testing.assert_close(mine, before, rtol=0, atol=1e-9)


@pytest.mark.parametrize("inner", [1, 5, 10])
def test_flops_formula_is_exact_and_counts_2k_plus_1_units(inner):
    net, batch = network(), images()
    method = LocoPropM(inner=inner)
    method.start(net, 1)
    with FlopCounterMode(display=False) as counter:
        method.update(net, batch, 1.0)
    given = types.SimpleNamespace(sizes=SIZES, batch=ROWS)
    assert counter.get_total_flops() == method.step_flops(given)
    wide = types.SimpleNamespace(sizes=(64, 256, 128, 64, 8, 64, 128, 256, 64), batch=250)
    ratio = method.step_flops(wide) / back_propagation_flops(wide.sizes, wide.batch)
    assert ratio == pytest.approx((2 * inner + 1) / 3, rel=0.05)
