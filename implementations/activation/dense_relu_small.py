"""A dense ReLU layer with fewer neurons: the simplest way to the FLOPs that skipping promises, with no kernel at all.

Skipping with a share s of neurons in use costs (1 + s) / 2 of the dense layer; `fraction` is that number. The default is for Top-k
with k = f / 24; for natural sparsity set it to what was measured.
"""

from __future__ import annotations

from effbench import param

from .mlp import Mlp
from .task import TrainedLayer


class DenseReluSmall(TrainedLayer):
    name = "dense-relu-small"

    fraction = param(0.52, sweep=[0.52, 0.6, 0.65])

    def layer(self, given):
        return Mlp(given.d, self.hidden_width(given))

    def hidden_width(self, given):
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction} must be above 0, at most 1")
        return max(1, round(self.fraction * given.width))
