"""The model before fine-tuning, as it is: it costs nothing and shows what fine-tuning changes."""

from __future__ import annotations

from effbench import Flops, param

from .kaft_task import FineTuning


class Pretrained(FineTuning):
    name = "pretrained"
    learning_rate = param(0.001)  # of no use: nothing is trained, so nothing is tuned

    def build(self, given, run):
        self.prepare(given)

    def step_flops(self, given):
        self.given = given
        return 0.0

    def flops(self, phase, case, tally):
        return Flops(0.0) if phase == "build" else super().flops(phase, case, tally)
