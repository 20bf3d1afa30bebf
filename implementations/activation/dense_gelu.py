"""The dense layer with GELU: what ReLU costs or gains in quality, which is no merit of sparsity.

Hendrycks and Gimpel, arXiv 1606.08415. Its activations are never exactly zero, so nothing can be skipped without an error.
"""

from __future__ import annotations

from .mlp import Mlp
from .task import TrainedLayer


class DenseGelu(TrainedLayer):
    name = "dense-gelu"

    def layer(self, given):
        return Mlp(given.d, given.width, "gelu")
