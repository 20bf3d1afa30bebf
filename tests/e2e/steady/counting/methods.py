"""The same method four times; the last two can be saved."""

import numpy as np

from .task import Doubler


class First(Doubler):
    name = "first"


class Second(Doubler):
    name = "second"


class Third(Doubler):
    name = "third"

    def save(self, folder):
        np.save(folder / "factor.npy", self.factor)

    def load(self, folder, given):
        self.factor = float(np.load(folder / "factor.npy"))


class Fourth(Third):
    name = "fourth"
