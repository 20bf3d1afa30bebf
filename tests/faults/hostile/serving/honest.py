"""Two honest methods: what must survive everybody else."""

import numpy as np

from .task import Answers


class Honest(Answers):
    name = "honest"


class AlsoHonest(Answers):
    name = "also-honest"

    def save(self, folder):
        np.save(folder / "base.npy", self.base)

    def load(self, folder, given):
        self.base = np.load(folder / "base.npy", allow_pickle=False)
