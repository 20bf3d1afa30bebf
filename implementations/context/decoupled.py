"""Decoupled context processing: each document is encoded once, without the question; the decoder looks at the stored vectors.

Li, Guo & Kumar, Decoupled Context Processing for Context Augmented Language Modeling, arXiv 2210.05758. Encoder outputs of the
retrieved documents stand side by side, each from position 0, so that neither order nor company changes them; the question goes to
the decoder alone. `cache` keeps the encoder's output ("hidden") or every decoder layer's keys and values of it ("kv"): more bytes,
no projection online. Left out: the retriever, T5's pretrained weights; its relative positions are fixed ones here.
"""

from __future__ import annotations

import torch

from effbench import Bound, Claim, knob

from . import caches, costs, training
from .corpus import PAD, VOCABULARY
from .task import ContextReader

CACHES = ("kv", "hidden")


class Decoupled(ContextReader):
    name = "decoupled-context"
    version = 2
    claims = (
        Claim(
            "Reads what it encoded before the question: better than no context, and documents of another question do not do",
            "Li, Guo & Kumar, arXiv 2210.05758, abstract (grounded in the context); the bounds are effbench's",
            parts=(
                Bound("quality.bits", "<", 1.0, over="no-context", case="cached-1"),
                Bound("quality.bits-shuffled", ">=", 0.98, over="no-context", case="cached-1"),
            ),
            partly=(0,),
            size="full",
        ),
        Claim(
            "Competitive with readers whose context encoding sees the question; here: bits within 2 % of theirs",
            "Li, Guo & Kumar, arXiv 2210.05758, abstract (competitive); the bounds are effbench's",
            parts=(
                Bound("quality.bits", "<=", 1.02, over="coupled", case="cached-1"),
                Bound("quality.bits", "<=", 1.02, over="fusion-in-decoder", case="cached-1"),
            ),
            size="full",
        ),
        Claim(
            "Encoding moves out of the question's way: a third of the coupled reader's FLOPs, in combinations it has not cached",
            "Li, Guo & Kumar, arXiv 2210.05758, abstract (encoding done before, offline); the bounds are effbench's",
            parts=(
                Bound("serve.flops", "<=", 0.333, over="coupled", case="regrouped-1"),
                Bound("serve.latency", "<", 1.0, over="coupled", case="regrouped-1"),
            ),
            partly=(0,),
            size="quick",
        ),
        Claim(
            "The same against a coupled reader that has the whole context in its prefix cache",
            "effbench's control: prefix caching is what a coupled reader would be served with",
            parts=(
                Bound("serve.flops", "<=", 1.0, over="coupled", case="cached-1"),
                Bound("serve.latency", "<=", 1.0, over="coupled", case="cached-1"),
            ),
            size="quick",
        ),
    )

    cache = knob("kv", sweep=("kv", "hidden"))

    hidden = projected = mask = None  # of the stored library, all its documents in a row

    def networks(self, given):
        return training.encoder_decoder(given, given.length)

    def configure(self, **knobs):
        super().configure(**knobs)
        if self.cache not in CACHES:
            raise ValueError(f"cache={self.cache!r} is none of {', '.join(CACHES)}")

    def document_mask(self, documents):
        return documents.ne(PAD) if self.given.padded else None

    def document_states(self, documents):
        """[b, k, length] -> hidden [b, k, length, d] and the mask [b, k, length] or None. The question has no way in."""
        mask = self.document_mask(documents)
        states = caches.encode(self.net["encoder"], documents.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        return states.unflatten(0, documents.shape[:2]), mask

    def logits(self, inputs, documents):
        hidden, mask = self.document_states(documents)
        return self.answer(inputs, caches.project(self.net["decoder"], hidden.flatten(1, 2)), mask)

    def answer(self, inputs, pairs, mask):
        return caches.decode(self.net["decoder"], inputs, pairs, None if mask is None else mask.flatten(1))

    def keys_values(self, hidden):
        """[..., d] -> [layers, 2, ..., d]."""
        return torch.stack([torch.stack(pair) for pair in caches.project(self.net["decoder"], hidden)])

    def encode(self, documents):
        with torch.no_grad():
            hidden, _ = self.document_states(documents)
            return hidden if self.cache == "hidden" else self.keys_values(hidden)

    def store(self, library):
        # One call for a document, not for a context: the same document in two contexts would be kept once.
        found = [self.document_states(part)[0] for part in library.flatten(0, 1)[:, None].split(4 * self.given.batch)]
        self.hidden = torch.cat(found).squeeze(1)  # [documents, length, d]
        self.projected = self.keys_values(self.hidden)  # [layers, 2, documents, length, d]
        self.mask = self.document_mask(library.flatten(0, 1))
        self.encoded_from = caches.state(self.net)

    def read_cached(self, inputs, documents, places, together):
        if caches.state(self.net) != self.encoded_from:
            raise ValueError("the cache was encoded with other parameters: call store() again after training")
        self.run.tally(cached_bytes=places.numel() * self.given.length * self.stored_bytes())
        with torch.no_grad():
            mask, flat = None if self.mask is None else self.mask[places], places.flatten()
            if self.cache == "kv":
                found = self.projected.index_select(2, flat).unflatten(2, places.shape)
                return self.answer(inputs, found.flatten(3, 4), mask)
            hidden = self.hidden.index_select(0, flat).unflatten(0, places.shape).flatten(1, 2)
            return self.answer(inputs, caches.project(self.net["decoder"], hidden), mask)

    def online(self, batch, cached):
        given, d = self.given, self.given.d
        decoder = costs.block(batch * given.n, given.n, d) + costs.cross(batch * given.n, given.context, d)
        found = given.layers * decoder + costs.head(batch * given.n, d, VOCABULARY)
        if cached == "nothing":
            found += self.encoding(batch)
        if cached == "nothing" or self.cache == "hidden":
            found += given.layers * costs.project(batch * given.context, d)
        return found

    def encoding(self, batch: int) -> costs.Cost:
        given = self.given
        return given.layers * costs.block(batch * given.context, given.length, given.d)

    def filling(self, batch):
        return self.encoding(batch) + self.given.layers * costs.project(batch * self.given.context, self.given.d)

    def offline(self, batch):
        return self.encoding(batch) if self.cache == "hidden" else self.filling(batch)

    def stored_bytes(self):
        return 4.0 * self.given.d * (1 if self.cache == "hidden" else 2 * self.given.layers)
