"""Toy early exit: a prepared network nobody trains here, a calibration split, work that depends on the token, tokens as items."""

import numpy as np

from effbench import Case, Data, Method, Metric, Task

DEPTH, WIDTH = 6, 12


class EarlyExit(Method):
    def generate(self, prompts):
        raise NotImplementedError


class ToyExit(Task):
    name = "toy-exit"
    interface = EarlyExit
    data = (Data("chain", {"prompts": 24}),)
    cases = (Case("batch-1", {"size": 1}), Case("batch-8", {"size": 8}))
    metrics = {"agreement": Metric("1", "higher", "token")}
    baselines = ("toy-full-depth",)

    def prepare(self, data, size, seed, run):
        rng = np.random.default_rng(5)
        return {"layers": 0.3 * rng.standard_normal((DEPTH, WIDTH, WIDTH)), "head": rng.standard_normal((WIDTH, 7))}

    def given(self, data, size, seed, prepared):
        calibration = np.random.default_rng([6, seed]).standard_normal((40, WIDTH))
        return {**prepared, "calibration": calibration, "delta": 0.1, "grid": np.linspace(1.0, 0.0, 11)}

    def hidden(self, data, size, seed, prepared):
        prompts = np.random.default_rng([8, seed]).standard_normal((data.args["prompts"], WIDTH))
        state = prompts
        for layer in prepared["layers"]:
            state = state + np.tanh(state @ layer)
        return {"prompts": prompts, "answer": (state @ prepared["head"]).argmax(1)}

    def batches(self, case, hidden, run):
        return [hidden["prompts"][i : i + case["size"]].copy() for i in range(0, len(hidden["prompts"]), case["size"])]

    def call(self, method, batch, case):
        return method.generate(batch)

    def items(self, batch, output):
        return output.size

    def score(self, method, given, hidden, case, outputs):
        return {"agreement": (np.concatenate(outputs) == hidden["answer"]).astype(float)}
