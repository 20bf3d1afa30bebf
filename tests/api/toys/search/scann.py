"""ScaNN in miniature: partitions, coarse scores of int8 codes, rescoring of the best."""

import numpy as np

from effbench import Flops, knob, param

from .task import VectorIndex


class Scann(VectorIndex):
    name = "toy-scann"
    partitions = param(8, sweep=[4, 8])
    loss = param("exact", sweep=["exact", "none"])
    leaves = knob(2, sweep=[1, 2, 8])
    rescore = knob(10, sweep=[5, 10])

    def build(self, given, run):
        self.base = given["base"]
        with run.part("partition"):
            self.centers = self.base[run.rng.choice(len(self.base), self.partitions, replace=False)]
            self.leaf = np.argmax(self.base @ self.centers.T - 0.5 * (self.centers**2).sum(1), axis=1)
        with run.part("encode"):
            self.scale = np.abs(self.base).max() / (127 if self.loss == "exact" else 15)
            self.codes = np.round(self.base / self.scale).astype(np.int8)

    def save(self, folder):
        np.savez(folder / "i.npz", centers=self.centers, leaf=self.leaf, scale=self.scale, codes=self.codes, base=self.base)

    def load(self, folder, given):
        self.__dict__.update(np.load(folder / "i.npz"))

    def search(self, queries, k):
        near = np.argsort(-queries @ self.centers.T, axis=1)[:, None, : self.leaves]
        inside = (self.leaf[None, :, None] == near).any(2)
        best = np.argsort(-np.where(inside, queries @ (self.codes.T * self.scale), -np.inf), axis=1)[:, : max(k, self.rescore)]
        self.run.tally(dots=lambda: inside.sum() + len(queries) * (self.partitions + self.rescore))
        return np.take_along_axis(best, np.argsort(-(self.base[best] @ queries[:, :, None])[..., 0], axis=1)[:, :k], axis=1)

    def flops(self, phase, case, tally):
        return Flops(2 * self.base.shape[1] * tally["dots"]) if phase == "serve" else None
