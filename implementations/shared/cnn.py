"""CNN-w, a small image classifier that trains in seconds on one core, its cost by formula, and one training loop.

Five 3x3 convolutions (no bias) with channels w, 2w, 2w, 4w, 4w and strides 1, 2, 1, 2, 1, each with batch norm and ReLU; the
mean over positions; a linear layer. w may be fractional: channels are rounded. One FLOP is one add or one multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.nn.utils.fusion import fuse_conv_bn_weights

STRIDES = (1, 2, 1, 2, 1)
MULTIPLES = (1, 2, 2, 4, 4)


def channels(width: float) -> tuple[int, ...]:
    return tuple(max(1, round(width * multiple)) for multiple in MULTIPLES)


# Cost by formula --------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """weights: entries of the kernel; outputs: channels or classes; positions: how often one image applies the kernel."""

    weights: int
    outputs: int
    positions: int


def layers(width: float, side: int, classes: int = 10) -> tuple[Layer, ...]:
    """The five convolutions and the linear layer on square images of this side, in order."""
    found, inputs = [], 1
    for outputs, stride in zip(channels(width), STRIDES):
        side = -(-side // stride)
        found.append(Layer(9 * inputs * outputs, outputs, side * side))
        inputs = outputs
    return (*found, Layer(inputs * classes, classes, 1))


def parameters(width: float, classes: int = 10, *, folded: bool = False) -> int:
    """Trainable numbers: kernels, scale and shift of each batch norm, the last bias; folded: one bias for each channel."""
    net = layers(width, 1, classes)
    return sum(layer.weights for layer in net) + (1 if folded else 2) * sum(channels(width)) + classes


def forward_flops(width: float, side: int, classes: int = 10) -> int:
    """Matmul-like FLOPs of one image: 2 a weight and position."""
    return sum(2 * layer.weights * layer.positions for layer in layers(width, side, classes))


def elementwise_flops(width: float, side: int, classes: int = 10) -> int:
    """Bias and ReLU of the folded network, the mean, the last bias; of one image."""
    *convolutions, linear = layers(width, side, classes)
    mean = convolutions[-1].outputs * convolutions[-1].positions
    return sum(2 * layer.outputs * layer.positions for layer in convolutions) + mean + linear.outputs


def training_flops(width: float, side: int, classes: int = 10) -> int:
    """Matmul-like FLOPs of one image in one step: 3 forward passes, less the gradient of the pixels, which nobody needs."""
    first = layers(width, side, classes)[0]
    return 3 * forward_flops(width, side, classes) - 2 * first.weights * first.positions


# The network ------------------------------------------------------------------------------------------------------------


class CNN(nn.Module):
    """float32 images [batch, 1, side, side] -> logits [batch, classes]. `folded` is the form to serve: biases, no batch norm."""

    def __init__(self, width: float = 16, *, classes: int = 10, seed: int = 0, folded: bool = False, channels_last: bool = False):
        super().__init__()
        self.width, self.classes, self.channels_last = width, classes, channels_last
        parts, inputs = [], 1
        with torch.random.fork_rng(devices=[]):  # the weights depend on the seed alone; nobody else's draws on the CPU move
            torch.manual_seed(seed)
            for outputs, stride in zip(channels(width), STRIDES):
                parts.append(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=folded))
                parts += [nn.ReLU()] if folded else [nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            self.features = nn.Sequential(*parts)
            self.linear = nn.Linear(inputs, classes)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images):
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.linear(self.features(images).mean((2, 3)))

    def kernels(self) -> list[nn.Parameter]:
        """The weights of the five convolutions and of the linear layer, in the order of `layers`."""
        return [part.weight for part in self.features if isinstance(part, nn.Conv2d)] + [self.linear.weight]


def folded(net: CNN) -> CNN:
    """The same function at inference with batch norm folded into the convolutions; zeros of a kernel stay zeros."""
    served = CNN(net.width, classes=net.classes, folded=True, channels_last=net.channels_last).to(net.linear.weight.device)
    convolutions = [part for part in served.features if isinstance(part, nn.Conv2d)]
    sources = [part for part in net.features if not isinstance(part, nn.ReLU)]
    with torch.no_grad():
        for target, conv, norm in zip(convolutions, sources[::2], sources[1::2]):
            statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            weight, bias = fuse_conv_bn_weights(conv.weight, None, *statistics)
            target.weight.copy_(weight)
            target.bias.copy_(bias)
        served.linear.load_state_dict(net.linear.state_dict())
    return served.eval()


def inference(net: CNN) -> Callable:
    """images -> logits without gradients. The network must be in eval mode."""

    @torch.inference_mode()
    def predict(images):
        return net(images)

    return predict


def to_vector(net: CNN):
    """All parameters of a folded network as one float32 numpy vector."""
    return parameters_to_vector(net.parameters()).detach().cpu().numpy()


def from_vector(vector, width: float, classes: int = 10, *, device: str = "cpu") -> CNN:
    """The way back. ValueError where the vector is not of this network."""
    net = CNN(width, classes=classes, folded=True)
    if vector.ndim != 1 or len(vector) != parameters(width, classes, folded=True):
        raise ValueError(f"a vector of shape {vector.shape} does not fill CNN-{width:g} with {classes} classes")
    with torch.no_grad():
        vector_to_parameters(torch.from_numpy(vector.astype("float32")), net.parameters())
    return net.to(device).eval()


# Training ---------------------------------------------------------------------------------------------------------------


def sgd(net: CNN, *, learning_rate: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Nesterov momentum; weight decay on kernels only."""
    kernels = net.kernels()
    chosen = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in net.parameters() if id(parameter) not in chosen]
    groups = [{"params": kernels, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=True)


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate at step 0 .. steps - 1: linear warm-up over 15 %, then linear to 0."""
    warm = max(1, round(0.15 * steps))
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm + 1)


def train(net: CNN, optimiser, images, labels, *, steps: int, batch: int = 128, seed: int = 0) -> Iterator[int]:
    """Cross-entropy for exactly `steps` steps; yields 1, 2, .. steps after each, with the network in eval mode.

    images float32 [n, 1, side, side] and labels int64 [n] lie on the network's device. Each pass has an order of its own, drawn
    from the seed; what is left of a pass below one batch is dropped. The peak rate is the one the optimiser came with.
    """
    if len(images) < batch:
        raise ValueError(f"{len(images)} training images do not fill one batch of {batch}")
    peaks = [group["lr"] for group in optimiser.param_groups]
    draws = torch.Generator().manual_seed(seed)
    per_pass = len(images) // batch
    for step in range(steps):
        if step % per_pass == 0:
            order = torch.randperm(len(images), generator=draws).to(labels.device)
        start = (step % per_pass) * batch
        chosen = order[start : start + batch]
        for group, peak in zip(optimiser.param_groups, peaks):
            group["lr"] = peak * rate(step, steps)
        net.train()
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(net(images[chosen]), labels[chosen]).backward()
        optimiser.step()
        net.eval()
        yield step + 1
