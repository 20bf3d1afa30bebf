"""Tabular Q-learning with an epsilon-greedy policy."""

import numpy as np

from effbench import Step, param

from .task import Agent


class QLearning(Agent):
    name = "toy-q"
    lr = param(0.5)
    epsilon = param(0.5)

    def build(self, given, run):
        self.q, state = np.zeros((given.cells, 2)), 0
        while not run.exhausted:
            for _ in range(20):
                explore = run.rng.random() < self.epsilon
                action = int(run.rng.integers(2)) if explore else self.act(state)
                after, reward, over = given.step(action)
                goal = reward + (0 if over else 0.95 * self.q[after].max())
                self.q[state, action] += self.lr * (goal - self.q[state, action])
                state = 0 if over else after
            yield Step(samples=20)

    def act(self, state):
        return int(self.q[state, 1] >= self.q[state, 0])
