"""Methods that break nothing: the checker must stay quiet."""

import json

import numpy as np

from effbench import knob, param

from .task import Product


class Sound(Product):
    name = "sound"
    deterministic = True
    gain = param(1.0, sweep=[1.0, 2.0])
    block = knob(8, sweep=[1, 64])

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"works in float32, not {self.run.dtype}"

    def times(self, x):
        return np.concatenate([x[i : i + self.block] @ self.matrix for i in range(0, len(x), self.block)])

    def save(self, folder):
        np.save(folder / "matrix.npy", self.matrix)
        (folder / "note.json").write_text(json.dumps({"rows": len(self.matrix)}))

    def load(self, folder, given):
        self.matrix = np.load(folder / "matrix.npy", allow_pickle=False)


class Skipping(Product):
    name = "skipping"

    def skip(self, given):
        return "needs a machine that nobody has"
