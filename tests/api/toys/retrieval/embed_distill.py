"""EmbedDistill in miniature: the query tower learns to land where the teacher's document vectors are."""

import numpy as np

from effbench import Step, param

from .task import QueryTower


class EmbedDistill(QueryTower):
    name = "toy-distill"
    symmetric = param(False, sweep=[False, True])

    def skip(self, given):
        return "" if len(given["queries"]) > 4 else "too few queries"

    def build(self, given, run):
        self.weights = np.zeros((10, 4))
        with run.part("train"):
            for _ in range(30):
                rows = run.rng.integers(0, len(given["queries"]), 16)
                x, y = given["queries"][rows], given["targets"][rows]
                self.weights -= 0.05 * x.T @ (x @ self.weights - y) / len(x)
                yield Step(samples=len(rows))
        with run.part("index"):
            self.documents = self.encode(given["documents"]) if self.symmetric else given["document_vectors"]

    def encode(self, texts):
        return texts @ self.weights

    def parameters(self):
        return self.weights.size
