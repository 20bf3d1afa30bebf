"""The neurons that calibration uses most, for every token alike: a smaller dense layer, cut out of the large one.

The rival of skipping at equal FLOPs: `fraction` is (1 + s) / 2, where skipping with a share s of neurons in use comes out. A neuron is
kept for its mean activation times the norm of its row of W2, the size of what it adds. No retraining (Li et al., arXiv 1608.08710,
prune filters by norm; here the activity is measured). From 1,024 neurons on their number is a multiple of 64, rounded up: with 9,011 of
16,384 the library's product of eight tokens took 2.5 times as long as the whole layer's.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from effbench import param

from .dense_relu import DenseReluServer
from .inference import Layer


class StaticNeurons(DenseReluServer):
    name = "static-neurons"
    exact = False

    fraction = param(0.55, sweep=[0.52, 0.55, 0.65])

    def place(self, layer, put):
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction} must be above 0, at most 1")
        use = np.maximum(layer.calibration @ layer.up.T + layer.up_bias, 0).mean(0) * np.linalg.norm(layer.down, axis=1)
        step = 64 if self.width >= 1024 else 1
        kept = np.sort(np.argsort(-use, kind="stable")[: step * ceil(self.fraction * self.width / step)])
        super().place(Layer(layer.up[kept], layer.up_bias[kept], layer.down[kept], layer.bias, layer.calibration), put)
        self.kept = len(kept)

    def flops(self, phase, case, tally):
        return None if phase == "build" else self.flops_of(case["tokens"], self.kept)
