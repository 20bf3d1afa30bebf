"""The dense ReLU layer: every neuron is multiplied, used or not. The arm that skipping has to beat.

Vaswani et al., arXiv 1706.03762, with ReLU as in the paper. In training it is the very network of `lazy-neurons`. For one token on a GPU
the layer multiplies by the kernel that skipping uses for W1, which is a tenth faster than the library's product: what skipping gains must
not be that it has the better kernel.
"""

from __future__ import annotations

from torch.nn.functional import linear

from . import skipping_kernels
from .inference import LayerServer
from .mlp import Mlp
from .skipping import top
from .task import TrainedLayer


class DenseRelu(TrainedLayer):
    name = "dense-relu"

    def layer(self, given):
        return Mlp(given.d, given.width)


class DenseReluServer(LayerServer):
    name = "dense-relu"

    def place(self, layer, put):
        # W2 as [d, f]: the layout that a product of few rows reads best.
        self.up, self.up_bias, self.down, self.bias = put(layer.up), put(layer.up_bias), put(layer.down.T), put(layer.bias)
        self.k = layer.k or self.width
        self.own_kernel = not skipping_kernels.unfit(self.width, self.up.device.type, self.run.dtype)

    def forward(self, x):
        if self.own_kernel and len(x) == 1:
            hidden = skipping_kernels.product(x, self.up, self.up_bias, relu=True)
            return skipping_kernels.product(top(hidden, self.k), self.down, self.bias)
        return linear(top(linear(x, self.up, self.up_bias).relu_(), self.k), self.down, self.bias)

    def parameters(self):
        return sum(weight.numel() for weight in (self.up, self.up_bias, self.down, self.bias))

    def flops(self, phase, case, tally):
        return None if phase == "build" else self.flops_of(case["tokens"], self.width)
