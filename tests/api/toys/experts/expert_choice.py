"""Expert Choice in miniature: every expert takes its best tokens, so the load is even by construction."""

import numpy as np

from effbench import Flops, param

from .task import FeedForward


class ExpertChoice(FeedForward):
    name = "toy-expert-choice"
    experts = param(4, sweep=[2, 4])
    capacity = param(2.0, sweep=[1.0, 2.0])

    def skip(self, given):
        return "sees future tokens" if given["causal"] else ""

    def start(self, given, run):
        self.gate = run.rng.standard_normal((8, self.experts))
        self.weights = run.rng.standard_normal((self.experts, 8, 16)) / 3
        self.readout = np.zeros((16, 8))

    def layer(self, x):
        scores = np.exp(x @ self.gate)
        scores /= scores.sum(1, keepdims=True)
        slots = max(1, int(self.capacity * len(x) / self.experts))
        chosen = np.argsort(-scores, axis=0)[:slots].T
        out = np.zeros((len(x), 16))
        hidden = np.maximum(x[chosen] @ self.weights, 0)
        np.add.at(out, chosen, hidden * np.take_along_axis(scores.T, chosen, axis=1)[..., None])
        self.run.tally(slots=chosen.size, tokens=len(x))
        return out

    def flops(self, phase, case, tally):
        return Flops(2 * 8 * (16 * tally["slots"] + self.experts * tally["tokens"])) if phase == "serve" else None
