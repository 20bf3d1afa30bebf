"""CNN-w: the cost formulas are those of the network that runs, and training is exact, seeded and without side effects."""

# ruff: noqa: E402
import pytest

torch = pytest.importorskip("torch")
from effbench_implementations.shared import cnn
from torch.utils.flop_counter import FlopCounterMode


def images(n=8, side=28, seed=0):
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def trained(steps=12, *, seed=0, side=8, **options):
    x, y = images(256, side), torch.arange(256) % 10
    net = cnn.CNN(4, seed=seed, **options)
    done = list(cnn.train(net, cnn.sgd(net), x, y, steps=steps, batch=64, seed=seed))
    assert done == list(range(1, steps + 1))
    return net


@pytest.mark.parametrize("width, count, flops", [(16, 70_330, 11.07e6), (8, 17_890, 2.82e6)])
def test_published_size_of_the_network(width, count, flops):
    assert cnn.parameters(width) == count == sum(p.numel() for p in cnn.CNN(width).parameters())
    assert cnn.forward_flops(width, 28) == pytest.approx(flops, rel=2e-3)


@pytest.mark.parametrize("width, side", [(16, 28), (8, 28), (8, 8), (7.1875, 28), (3, 9)])
def test_formulas_agree_with_the_counter(width, side):
    net, x = cnn.CNN(width), images(4, side)
    with FlopCounterMode(display=False) as forward:
        net(x)
    assert forward.get_total_flops() == pytest.approx(4 * cnn.forward_flops(width, side), rel=1e-2)
    with FlopCounterMode(display=False) as step:
        net(x).sum().backward()
    assert step.get_total_flops() == pytest.approx(4 * cnn.training_flops(width, side), rel=1e-2)
    served = cnn.folded(net.eval())
    assert cnn.parameters(width, folded=True) == sum(p.numel() for p in served.parameters())
    for layer, kernel in zip(cnn.layers(width, side), net.kernels(), strict=True):
        assert layer.weights == kernel.numel() and layer.outputs == len(kernel)


def test_folding_keeps_the_function_and_the_zeros():
    net, x = trained(), images(64, 8, seed=5)
    with torch.no_grad():
        net.kernels()[2].flatten()[::3] = 0
    served = cnn.folded(net)
    with torch.no_grad():
        torch.testing.assert_close(served(x), net(x), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a == 0, b == 0) for a, b in zip(net.kernels(), served.kernels(), strict=True))
    back = cnn.from_vector(cnn.to_vector(served), 4)
    assert torch.equal(cnn.inference(back)(x), cnn.inference(served)(x))
    with pytest.raises(ValueError, match="does not fill"):
        cnn.from_vector(cnn.to_vector(served)[:-1], 4)


def test_the_seed_decides_everything_and_nobody_elses_draws_move():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    one = trained()
    assert torch.equal(torch.rand(3), expected)
    two, three = trained(), trained(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.linear.weight, three.linear.weight)


def test_channels_last_computes_the_same():
    one, two, x = trained(), trained(channels_last=True), images(16, 8)
    assert two.kernels()[1].is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(one(x), two(x), rtol=1e-2, atol=1e-3)


def test_learning_rate_warms_up_and_ends_near_zero():
    rates = [cnn.rate(step, 100) for step in range(100)]
    assert max(rates) == 1 and rates.index(1) == 14 and rates[0] < 0.1 and 0 < rates[-1] < 0.02
    assert all(0 < cnn.rate(step, steps) <= 1 for steps in (1, 2, 3, 7) for step in range(steps))


def test_too_few_images_are_refused():
    net = cnn.CNN(2)
    with pytest.raises(ValueError, match="do not fill one batch"):
        next(cnn.train(net, cnn.sgd(net), images(10), torch.zeros(10).long(), steps=1, batch=64))
