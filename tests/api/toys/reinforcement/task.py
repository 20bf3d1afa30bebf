"""Toy reinforcement learning: the environment is in `given`, Step counts environment steps, evaluation plays episodes."""

import numpy as np

from effbench import Data, Method, Metric, Task


class Agent(Method):
    def act(self, state):
        raise NotImplementedError


class Corridor:
    """Nine cells; 1 moves right, 0 left; the last cell pays 1 and ends the episode."""

    cells = 9

    def __init__(self):
        self.at = 0

    def step(self, action):
        self.at = min(max(self.at + (1 if action else -1), 0), self.cells - 1)
        over = self.at == self.cells - 1
        state, self.at = self.at, 0 if over else self.at
        return state, float(over), over


class ToyControl(Task):
    name = "toy-control"
    interface = Agent
    phases = ("build",)
    data = (Data("corridor"),)
    metrics = {"return": Metric("1", "higher", "seed")}
    baselines = ("toy-q",)
    objective = "return"

    def given(self, data, size, seed, prepared):
        return Corridor()

    def evaluate(self, method, given):
        env, state = Corridor(), 0
        for t in range(50):
            state, reward, over = env.step(method.act(state))
            if over:
                return {"return": reward * 0.95**t}
        return {"return": 0.0}

    def score(self, method, given, hidden, case, outputs):
        return {"return": np.float64(self.evaluate(method, given)["return"])}
