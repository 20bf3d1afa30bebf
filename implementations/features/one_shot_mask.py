"""The same softmax mask over all features, trained once, and the k largest picked at the end: attention without the sequence.

The arm that shows what the rounds add: network, mask, warm-up, steps and tuning ranges are those of `sequential-attention`. Close to
what its source (arXiv 2209.14881) compares with as one-shot attention (Liao, Latty and Yang, 2021), whose attention module is left out.
"""

from __future__ import annotations

from .sequential_attention import Attentive


class OneShotMask(Attentive):
    name = "one-shot-mask"
    version = 1
    backend = "torch"

    def per_round(self, given):
        return given.k
