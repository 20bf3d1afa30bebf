"""Arms without a memory: a network on the top task alone, and one trunk with a head for every task.

`end-to-end` spends all samples on the top task and is four times as wide as a module. `joint` sees all tasks mixed from the first
step to the last and is told which task each example is of: the strong rival, for it has the sub-tasks.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

from effbench import Flops, Log, Step, param

from ..shared.transformer import parameter_count, restore, store
from .sketch_task import Learner, School


class Plain(Learner):
    """A perceptron with `layers` hidden layers of `width`, and a head for each of its outputs."""

    learning_rate = param(0.003, tune=Log(0.0002, 0.01))
    width = param(512, sweep=(512, 2048))
    layers = param(1)

    def heads(self, given: School) -> int:
        return 1

    def stream(self, given: School, steps: int, rng):
        raise NotImplementedError

    def prepare(self, given: School) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"width and layers must be at least 1, not {self.width} and {self.layers}")
        torch.manual_seed(self.run.seed)
        self.given = given
        sizes = [given.bits, *[self.width] * self.layers]
        hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(self.width, self.heads(given))).to(self.run.device)

    def margins(self, x, task):
        found = self.net(x)
        return found[:, 0] if found.shape[1] == 1 else found.gather(1, task[:, None])[:, 0]

    def build(self, given: School, run):
        steps = self.check(given, run)
        self.prepare(given)
        optimiser = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate)
        for x, _, labels, task in self.stream(given, steps, np.random.default_rng((run.seed, 43))):
            x, labels, task = run.put(x), run.put(labels), run.put(task)
            loss = softplus(-labels * self.margins(x, task)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            yield Step(samples=given.batch)

    @torch.no_grad()
    def answer(self, x, descriptors, task):
        self.run.tally(rows=len(x))
        return torch.where(self.margins(x, task) > 0, 1.0, -1.0)

    def rest(self, given: School) -> float:
        """Multiply-adds of one example after the first layer."""
        return (self.layers - 1) * self.width**2 + self.width * self.heads(given)

    def step_flops(self, given):
        return given.batch * (4.0 * given.bits * self.width + 6.0 * self.rest(given))

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        work = 2.0 * tally["rows"] * (self.given.bits * self.width + self.rest(self.given))
        return Flops(work, useful=work, dense=work)

    def parameters(self):
        return parameter_count(self.net)

    def save(self, folder: Path) -> None:
        np.savez(Path(folder) / "network.npz", **store(self.net))

    def load(self, folder: Path, given: School) -> None:
        self.prepare(given)
        with np.load(Path(folder) / "network.npz", allow_pickle=False) as file:
            restore(self.net, dict(file))


class EndToEnd(Plain):
    name = "end-to-end"

    def stream(self, given, steps, rng):
        return given.alone(steps, rng)

    def answers(self, level, levels):
        return level == levels - 1


class Joint(Plain):
    name = "joint"
    version = 2
    width = param(256, sweep=(256, 1024))
    # Three: at a small rate it learns nearly all of the tree, and with two it did not. Fixed, so that all trials go to the rate.
    layers = param(3, sweep=(1, 2, 3))

    def heads(self, given):
        return given.tasks

    def stream(self, given, steps, rng):
        return given.mixed(steps, rng)
