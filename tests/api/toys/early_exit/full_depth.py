"""All layers for every token."""

import numpy as np

from .task import EarlyExit


class FullDepth(EarlyExit):
    name = "toy-full-depth"
    deterministic = True

    def build(self, given, run):
        self.layers, self.head = given["layers"], given["head"]

    def generate(self, prompts):
        for layer in self.layers:
            prompts = prompts + np.tanh(prompts @ layer)
        return (prompts @ self.head).argmax(1)
