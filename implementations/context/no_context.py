"""The decoder alone: it never sees a document. What parameters and the prompt know by themselves, and the cheapest arm.

Vaswani et al., arXiv 1706.03762: a causal transformer of the depth and width that the other arms' decoder has.
"""

from __future__ import annotations

from ..shared.transformer import Transformer
from . import costs
from .corpus import VOCABULARY
from .task import ContextReader


class NoContext(ContextReader):
    name = "no-context"

    def networks(self, given):
        return Transformer(VOCABULARY, given.d, given.layers, given.heads, given.n, causal=True)

    def logits(self, inputs, documents):
        return self.net(inputs)

    def online(self, batch, cached):
        given = self.given
        return costs.extend(batch, given.n, 0, given.d, given.layers, VOCABULARY)
