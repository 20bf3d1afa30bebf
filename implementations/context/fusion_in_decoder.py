"""Fusion-in-Decoder: the encoder reads the question with each document, the decoder looks at all of them.

Izacard & Grave, Leveraging Passage Retrieval with Generative Models, arXiv 2007.01282. Documents are encoded apart from each other,
but not from the question: nothing can be encoded before it is known, which is the quality that decoupling gives up. For the
paper's "question:" stands a learned vector on the question's tokens: without it the decoder looks at their copies in place of the
document's, and some seeds never learned `kvbook`. Left out: pretrained weights; the markers of title and context.
"""

from __future__ import annotations

import torch

from . import caches, costs, training
from .corpus import PAD, VOCABULARY
from .task import ContextReader


class FusionInDecoder(ContextReader):
    name = "fusion-in-decoder"
    version = 2

    def networks(self, given):
        net = training.encoder_decoder(given, given.prompt + given.length)
        net["mark"] = torch.nn.Embedding(1, given.d)
        return net

    def logits(self, inputs, documents):
        b, k = documents.shape[:2]
        question = inputs[:, None, : self.given.prompt].expand(-1, k, -1)
        seen = torch.cat((question, documents), 2)
        mask = seen.ne(PAD) if self.given.padded else None
        if mask is not None:
            mask[:, :, : question.shape[2]] &= mask[:, :, question.shape[2] :].any(-1, keepdim=True)  # no document, nothing to see
        mark, flat = self.net["mark"].weight.expand(question.shape[2], -1), None if mask is None else mask.flatten(0, 1)
        marks = torch.cat((mark, mark.new_zeros(documents.shape[2], mark.shape[1])))
        hidden = caches.encode(self.net["encoder"], seen.flatten(0, 1), flat, marks)
        pairs = caches.project(self.net["decoder"], hidden.unflatten(0, (b, k)).flatten(1, 2))
        return caches.decode(self.net["decoder"], inputs, pairs, None if mask is None else mask.flatten(1))

    def online(self, batch, cached):
        given, d = self.given, self.given.d
        each = given.prompt + given.length
        seen = each * given.documents
        encoder = costs.block(batch * seen, each, d) + costs.project(batch * seen, d)
        decoder = costs.block(batch * given.n, given.n, d) + costs.cross(batch * given.n, seen, d)
        return given.layers * (encoder + decoder) + costs.head(batch * given.n, d, VOCABULARY)
