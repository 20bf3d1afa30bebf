"""Documents and question as one text before a causal model, with a prefix cache: the strong and simple way to read a context.

A text that begins as one seen before continues from its keys and values (prefix caching as in vLLM, Kwon et al., arXiv 2309.06180,
and SGLang, Zheng et al., arXiv 2312.07104). Keys and values of a document depend on all before it: in another combination only the
first can be reused. Context rows leave the last layer once their keys and values are there. Left out: pages, eviction.
"""

from __future__ import annotations

import torch

from effbench import param

from ..shared.transformer import Transformer
from . import caches, costs
from .corpus import VOCABULARY
from .task import ContextReader


class Coupled(ContextReader):
    name = "coupled"
    version = 2
    # Layers, in multiples of the decoder's; 2 has about decoupled-context's parameters. Not tuned: tuning looks at bits alone, and
    # would buy them with the FLOPs and seconds that this arm is the baseline of.
    depth = param(1, sweep=(1, 2))

    def skip(self, given):
        return "a prefix cache holds no padding" if given.padded else super().skip(given)

    def layers(self) -> int:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: at least 1 times the decoder's layers")
        return self.depth * self.given.layers

    def networks(self, given):
        net = Transformer(VOCABULARY, given.d, self.layers(), given.heads, given.context + given.n, causal=True)
        return caches.causal(net, given.heads)

    def logits(self, inputs, documents):
        context, pairs = documents.flatten(1), []
        caches.advance(self.net, context, 0, caches.in_list(pairs), answer=False)
        return caches.advance(self.net, inputs, context.shape[1], caches.in_list(pairs), answer=True)

    def slots(self, batch: int):
        """Room for keys and values of a context and a question: [layers, 2, batch, context + n, d]."""
        given, like = self.given, self.net.head.weight
        return torch.empty(self.layers(), 2, batch, given.context + given.n, given.d, device=like.device, dtype=like.dtype)

    def encode(self, documents):
        """Keys and values [layers, 2, b, context, d] of whole contexts."""
        with torch.no_grad():
            slots = self.slots(len(documents))
            caches.advance(self.net, documents.flatten(1), 0, caches.in_place(slots, 0), answer=False)
            return slots[:, :, :, : self.given.context]

    def store(self, library):
        self.prefixes = self.slots(len(library))
        for part in torch.arange(len(library), device=library.device).split(self.given.batch):
            self.prefixes[:, :, part, : self.given.context] = self.encode(library[part])
        self.encoded_from = caches.state(self.net)

    def read(self, inputs, documents):
        with torch.no_grad():
            return self.resume(self.slots(len(inputs)), 0, documents, inputs)

    def read_cached(self, inputs, documents, places, together):
        if caches.state(self.net) != self.encoded_from:
            raise ValueError("the prefix cache was filled with other parameters: call store() again after training")
        kept = self.given.documents if together else 1
        self.run.tally(cached_bytes=len(inputs) * kept * self.given.length * self.stored_bytes())
        with torch.no_grad():
            # A text is found by its first document: the library holds the contexts in order.
            slots = self.prefixes.index_select(2, places[:, 0] // self.given.documents)
            return self.resume(slots, kept, documents, inputs)

    def resume(self, slots, kept: int, documents, inputs):
        """The answer where the first `kept` documents are in the slots."""
        start, rest = kept * self.given.length, documents[:, kept:].flatten(1)
        if rest.shape[1]:
            caches.advance(self.net, rest, start, caches.in_place(slots, start), answer=False)
        end = self.given.context
        return caches.advance(self.net, inputs, end, caches.in_place(slots, end), answer=True)

    def online(self, batch, cached):
        given = self.given
        kept = {"nothing": 0, "apart": given.length, "together": given.context}[cached]
        found = costs.extend(batch, given.n, given.context, given.d, self.layers(), VOCABULARY)
        if kept < given.context:
            found += costs.prefill(batch, given.context - kept, kept, given.d, self.layers())
        return found

    def offline(self, batch):
        given = self.given
        return costs.prefill(batch, given.context, 0, given.d, self.layers())

    def stored_bytes(self):
        return 8.0 * self.layers() * self.given.d
