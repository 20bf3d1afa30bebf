"""The same softmax mask over all features, trained once, and the k largest picked at the end: attention without the sequence.

The arm that shows what the rounds add: network, mask, warm-up and steps are those of `sequential-attention`. Close to
what its source (arXiv 2209.14881) compares with as one-shot attention (Liao, Latty and Yang, 2021), whose attention module is left out.
"""

from __future__ import annotations

from effbench import Log, param

from .sequential_attention import Attentive


class OneShotMask(Attentive):
    name = "one-shot-mask"
    version = 1
    backend = "torch"
    # A round lasts k times as long: at the rate of `sequential-attention` the softmax closes before the scores are worth anything.
    score_rate = param(0.01, tune=Log(0.001, 0.1))

    def per_round(self, given):
        return given.k
