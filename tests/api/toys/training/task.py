"""Toy training: the interface owns the loop, the task owns network and data; budgets in steps and in another method's FLOPs."""

import numpy as np

from effbench import Data, Method, Metric, Step, Task


class Optimiser(Method):
    units = 3  # matrix products of one step, in units of 2 * rows * weights

    def step_flops(self, given):
        return self.units * 2 * 32 * given["weights"].size

    def build(self, given, run):
        self.net = given["weights"].copy()
        self.steps = run.budget.steps
        for t in range(run.budget.steps):
            rows = run.rng.integers(0, len(given["x"]), 32)
            self.update(given["x"][rows], given["y"][rows], t)
            yield Step(samples=32)


class ToyTraining(Task):
    name = "toy-training"
    interface = Optimiser
    phases = ("build",)
    data = (Data("teacher", {"d": 6}),)
    metrics = {"train-loss": Metric("1", "lower", "seed"), "test-loss": Metric("1", "lower", "seed")}
    baselines = ("toy-sgd",)
    objective = "validation-loss"

    def given(self, data, size, seed, prepared):
        rng = np.random.default_rng([3, seed])
        x, w = rng.standard_normal((300, data.args["d"])), rng.standard_normal((data.args["d"], 3))
        y = np.tanh(x @ w)
        return {
            "x": x[:200],
            "y": y[:200],
            "vx": x[200:250],
            "vy": y[200:250],
            "weights": 0.1 * rng.standard_normal(w.shape),
            "w": w,
        }

    def hidden(self, data, size, seed, prepared):
        x = np.random.default_rng([4, seed]).standard_normal((50, data.args["d"]))
        return {"x": x, "y": np.tanh(x @ self.given(data, size, seed, prepared)["w"])}

    def evaluate(self, method, given):
        return {"validation-loss": loss(method.net, given["vx"], given["vy"])}

    def score(self, method, given, hidden, case, outputs):
        return {"train-loss": loss(method.net, given["x"], given["y"]), "test-loss": loss(method.net, hidden["x"], hidden["y"])}


def loss(weights, x, y):
    return float(((np.tanh(x @ weights) - y) ** 2).mean())
