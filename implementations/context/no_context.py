"""The decoder alone: it never sees a document. What parameters and the prompt know by themselves, and the cheapest arm.

Vaswani et al., arXiv 1706.03762: a causal transformer of the depth and width that the other arms' decoder has.
"""

from __future__ import annotations

from ..shared.transformer import Transformer
from . import caches, costs
from .corpus import VOCABULARY
from .task import ContextReader


class NoContext(ContextReader):
    name = "no-context"
    version = 2

    def networks(self, given):
        return caches.causal(Transformer(VOCABULARY, given.d, given.layers, given.heads, given.n, causal=True), given.heads)

    def logits(self, inputs, documents):
        return caches.advance(self.net, inputs, 0, caches.in_list([]), answer=True)

    def online(self, batch, cached):
        given = self.given
        return costs.extend(batch, given.n, 0, given.d, given.layers, VOCABULARY)
