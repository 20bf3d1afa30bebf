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
        with run.part("partition"):
            self.centers = given["base"][run.rng.choice(len(given["base"]), self.partitions, replace=False)]
            self.leaf = np.argmax(given["base"] @ self.centers.T - 0.5 * (self.centers**2).sum(1), axis=1)
        with run.part("encode"):
            self.base, self.scale = given["base"], np.abs(given["base"]).max() / 127
            self.codes = np.round(self.base / self.scale).astype(np.int8)

    def save(self, folder):
        np.savez(folder / "index.npz", centers=self.centers, leaf=self.leaf, scale=self.scale, codes=self.codes, base=self.base)

    def load(self, folder, given):
        self.__dict__.update(np.load(folder / "index.npz"))

    def search(self, queries, k):
        near = np.argsort(-queries @ self.centers.T, axis=1)[:, None, : self.leaves]
        inside = (self.leaf[None, :, None] == near).any(2)
        coarse = np.where(inside, queries @ (self.codes.T * self.scale), -np.inf)
        best = np.argsort(-coarse, axis=1)[:, : max(k, self.rescore)]
        self.run.tally(points=inside.sum, queries=len(queries))
        order = np.argsort(-(self.base[best] @ queries[:, :, None])[..., 0], axis=1)
        return np.take_along_axis(best, order[:, :k], axis=1)

    def flops(self, phase, case, tally):
        scored = tally.get("points", 0) + tally.get("queries", 0) * (self.partitions + self.rescore)
        return Flops(2 * self.base.shape[1] * scored) if phase == "serve" else None
