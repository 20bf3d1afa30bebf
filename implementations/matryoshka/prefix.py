"""Plain prefixes: the first m numbers of an embedding that was trained at full length only, and the classifier's first m columns.

What happens to a model that was not trained for being cut. No paper; `pca-prefix` and `random-projection` turn the same model first.
"""

from __future__ import annotations

from .recipe import Heads
from .task import Representation


class Prefix(Representation):
    name = "prefix"
    version = 1

    def heads(self, spec):
        return Heads((spec.d,), spec.classes, self.run.seed)

    def extract(self, nets, heads, given, rows):
        return {"head": heads.layers[0].weight.detach(), "bias": heads.layers[0].bias.detach()}
