"""The small dense baseline: a narrower network with as many parameters as a pruned one keeps, trained for the same steps.

The comparison that pruning papers are asked for (Blalock et al. 2003.03033): is a large sparse network better than a small dense one?
Channels shrink together; other ways to be small (fewer layers, other kernels) are left out.
"""

from __future__ import annotations

from effbench import param

from .task import Classifier, Given


class DenseSmall(Classifier):
    name = "dense-small"
    version = 1
    backend = "torch"
    sparsity = param(0.8, sweep=(0.5, 0.8, 0.9, 0.95))  # the pruned network to match, in the words of magnitude-pruning

    def width(self, given: Given) -> float:
        """The smallest width, in steps of 1/16, with at least the non-zero parameters of the pruned network."""
        from ..shared.cnn import layers, parameters

        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity = {self.sparsity}: use 0 <= sparsity < 1")
        weights = sum(layer.weights for layer in layers(given.width, given.side, given.classes))
        target = parameters(given.width, given.classes, folded=True) - round(self.sparsity * weights)
        tried = (sixteenths / 16 for sixteenths in range(1, int(16 * given.width) + 1))
        return next((w for w in tried if parameters(w, given.classes, folded=True) >= target), given.width)
