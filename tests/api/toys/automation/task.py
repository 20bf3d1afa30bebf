"""Toy search for settings: no serve phase, a simulated clock, replications, a regret curve and hits that may never come."""

import heapq

import numpy as np

from effbench import Curve, Data, Method, Metric, Task


class Tuner(Method):
    pass


class Cluster:
    """W simulated workers; a job trains configuration `c` to an epoch and takes a random time per epoch."""

    def __init__(self, rng, workers, sigma, horizon):
        self.rng, self.horizon, self.sigma = rng, horizon, sigma
        self.queue = [(0.0, i, None) for i in range(workers)]
        self.final = rng.uniform(0, 1, 200)
        self.now, self.log = 0.0, []

    def over(self):
        return self.now >= self.horizon

    def wait(self):
        self.now, worker, job = heapq.heappop(self.queue)
        if job is not None:
            self.log.append((self.now, *job, self.final[job[0]] + 1.0 / job[1]))
        return worker, (self.log[-1][1:] if job is not None else None)

    def start(self, worker, config, epochs, done=0):
        took = (epochs - done) * self.rng.lognormal(0, self.sigma)
        heapq.heappush(self.queue, (self.now + took, worker, (config, epochs)))


class ToyTuning(Task):
    name = "toy-tuning"
    interface = Tuner
    phases = ("build",)
    replicates = 12
    data = (Data("cluster", {"workers": 4, "sigma": 0.5}),)
    metrics = {"final-regret": Metric("1", "lower", "replicate"), "time-to-target": Metric("epoch", "lower", "replicate")}
    baselines = ("toy-asha",)

    def given(self, data, size, seed, prepared):
        return Cluster(np.random.default_rng([1, seed]), data.args["workers"], data.args["sigma"], 60.0)

    def score(self, method, given, hidden, case, outputs):
        grid, best = np.linspace(5, 60, 12), np.minimum.accumulate([row[3] for row in given.log])
        times = np.array([row[0] for row in given.log])
        regret = np.array([best[times <= t][-1] if (times <= t).any() else 2.0 for t in grid]) - given.final.min()
        hits = times[best <= given.final.min() + 0.15]
        return {"final-regret": float(regret[-1]), "time-to-target": hits[:1], "regret": Curve(grid, regret)}
