"""Single size: one classifier for all samples, on the first `dims` numbers (0: all). With `family = "separate"`, of a network of that size."""

from __future__ import annotations

import torch

from effbench import Flops, knob

from .classification import AdaptiveClassifier
from .material import columns


class SingleSize(AdaptiveClassifier):
    name = "single-size"
    version = 1
    deterministic = True

    dims = knob(0, sweep=(2, 4, 8, 16, 32, 0))

    def size(self) -> int:
        m = self.dims or self.sizes[-1]
        if m not in self.sizes:
            raise ValueError(f"dims={self.dims} is none of the sizes {self.sizes}")
        return m

    def classify(self, embeddings):
        m = self.size()
        z = self.accept(embeddings)[:, columns(self.family, m, self.sizes)]
        weight, bias = self.heads[m]
        found = torch.addmm(bias, z, weight.T).argmax(1)
        return found, torch.full_like(found, m)

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        each = 2.0 * case["batch"] * self.classes
        return Flops(each * self.size(), dense=each * self.sizes[-1], other=case["batch"] * self.classes)
