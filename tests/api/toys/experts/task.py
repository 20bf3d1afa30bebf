"""Toy layer: the technique is a layer, the interface builds and trains the network; two calls (forward, step); unfair()."""

import numpy as np

from effbench import Case, Data, Method, Metric, Step, Task


class FeedForward(Method):
    def layer(self, x):
        raise NotImplementedError

    def build(self, given, run):
        self.start(given, run)
        for _ in range(run.budget.steps):
            x = run.rng.standard_normal((32, given["d"]))
            self.readout = self.readout - 0.05 * self.layer(x).T @ (self.layer(x) @ self.readout - given["teacher"](x)) / 32
            yield Step(samples=32)


class ToyLayer(Task):
    name = "toy-layer"
    interface = FeedForward
    data = (Data("tokens", {"causal": False}), Data("causal-tokens", {"causal": True}))
    cases = (Case("forward"), Case("step"))
    metrics = {"error": Metric("1", "lower", "token")}
    baselines = ("toy-expert-choice",)

    def given(self, data, size, seed, prepared):
        direction = np.random.default_rng(2).standard_normal((8, 8))
        return {"d": 8, "causal": data.args["causal"], "teacher": lambda x: np.tanh(x @ direction)}

    def hidden(self, data, size, seed, prepared):
        return {"x": np.random.default_rng([9, seed]).standard_normal((3, 64, 8))}

    def batches(self, case, hidden, run):
        return list(hidden["x"])

    def call(self, method, batch, case):
        out = method.layer(batch)
        return out if case.name == "forward" else out.T @ (out @ method.readout)

    def score(self, method, given, hidden, case, outputs):
        out = np.concatenate([method.layer(x) @ method.readout for x in hidden["x"]])
        return {"error": ((out - given["teacher"](hidden["x"].reshape(-1, 8))) ** 2).mean(1)}

    def unfair(self, record, other):
        mine, theirs = (item["readings"]["serve.flops"]["value"] for item in (record, other))
        return "active FLOPs differ by more than 2 %" if abs(mine - theirs) > 0.02 * theirs else ""
