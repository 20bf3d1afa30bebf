"""k columns by chance: the floor that every selection must beat. No paper, no setting."""

from __future__ import annotations

from .task import Selector


class RandomFeatures(Selector):
    name = "random-features"
    version = 1
    backend = "torch"

    def select(self, given, run):
        self.spent = 0.0
        return run.rng.permutation(given.x.shape[1])[: given.k]
