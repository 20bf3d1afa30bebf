"""CALM in miniature: leave a token's stack of layers once it is confident; the threshold is calibrated in the build."""

import numpy as np

from effbench import Flops, Step, param

from .task import EarlyExit


class Calm(EarlyExit):
    name = "toy-calm"
    confidence = param("softmax", sweep=["softmax", "state"])

    def build(self, given, run):
        self.layers, self.head, self.lam = given["layers"], given["head"], 2.0
        with run.part("calibrate"):
            full, chosen = self.generate(given["calibration"]), 2.0
            for lam in given["grid"]:
                self.lam = float(lam)
                if (self.generate(given["calibration"]) != full).mean() <= given["delta"]:
                    chosen = self.lam
                yield Step(samples=len(given["calibration"]))
        self.lam = chosen

    def generate(self, prompts):
        state, open_, used = prompts.copy(), np.ones(len(prompts), bool), 0
        for layer in self.layers:
            moved = np.tanh(state[open_] @ layer)
            state[open_] += moved
            used += int(open_.sum())
            open_[open_] = self.score(state[open_], moved) < self.lam
        self.run.tally(tokens=len(prompts), layers=used)
        return (state @ self.head).argmax(1)

    def score(self, state, moved):
        top = np.sort(np.exp(state @ self.head), axis=1)
        return 1 - np.abs(moved).mean(1) if self.confidence == "state" else (top[:, -1] - top[:, -2]) / top.sum(1)

    def flops(self, phase, case, tally):
        return Flops(2 * tally["layers"] * 12 * 12 + 2 * (tally["tokens"] + tally["layers"]) * 12 * 7) if phase == "serve" else None
