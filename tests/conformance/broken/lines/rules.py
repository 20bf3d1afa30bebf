"""One rule broken by each class. The file's own import is sound."""

import pickle
import threading
from pathlib import Path

import numpy as np

from effbench import Flops, knob

from .task import Product

KEPT = []


class Eager(Product):
    name = "eager"

    def __init__(self, **settings):
        super().__init__(**settings)
        self.ready = True


class Renamed(Product):
    name = "literal"


Renamed.version = 2  # the text says 1


class Wordless(Product):
    name = "wordless"

    def skip(self, given):
        return None


class Inexact(Product):
    name = "inexact"

    def times(self, x):
        return x @ self.matrix + 1.0


class SecondSeed(Product):
    name = "second-seed"

    def times(self, x):
        return x @ self.matrix + (0.0 if self.run.seed == 0 else 1.0)


class BadKnob(Product):
    name = "bad-knob"
    blocks = knob(2, sweep=[1, 0])

    def times(self, x):
        return x[:: 64 // (64 // self.blocks)] @ self.matrix if self.blocks == 0 else x @ self.matrix


class ByIdentity(Product):
    name = "by-identity"

    def times(self, x):
        self.seen = getattr(self, "seen", {})
        if id(x) not in self.seen:
            self.seen[id(x)] = x, x @ self.matrix
        return self.seen[id(x)][1]


class ByContent(Product):
    name = "by-content"

    def times(self, x):
        self.seen = getattr(self, "seen", {})
        key = x[0, :4].tobytes()
        if key not in self.seen:
            self.seen[key] = sum(x @ self.matrix for _ in range(20)) / 20
        return self.seen[key]


class Loose(Product):
    name = "loose"
    deterministic = True

    def build(self, given, run):
        self.matrix = given["matrix"]
        self.scale = 1 if run.seed == 0 else -1

    def times(self, x):
        return x @ self.matrix * self.scale


class Unseeded(Product):
    name = "unseeded"

    def build(self, given, run):
        self.noise = np.random.default_rng().uniform(0, 1e-3)
        self.matrix = given["matrix"]

    def times(self, x):
        return x @ self.matrix + self.noise


class Pickled(Product):
    name = "pickled"

    def save(self, folder):
        (folder / "matrix.npy").write_bytes(pickle.dumps(self.matrix))

    def load(self, folder, given):
        self.matrix = pickle.loads((folder / "matrix.npy").read_bytes())


class Forgetful(Product):
    name = "forgetful"

    def save(self, folder):
        np.save(folder / "matrix.npy", self.matrix)

    def load(self, folder, given):
        self.matrix = -np.load(folder / "matrix.npy", allow_pickle=False)


class HalfAPair(Product):
    name = "half-a-pair"

    def save(self, folder):
        np.save(folder / "matrix.npy", self.matrix)


class Leaking(Product):
    name = "leaking"

    def build(self, given, run):
        self.matrix = given["matrix"]
        KEPT.append(np.ones(3 << 20))


class Threaded(Product):
    name = "threaded"

    def build(self, given, run):
        self.matrix = given["matrix"]
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class Littering(Product):
    name = "littering"

    def build(self, given, run):
        self.matrix = given["matrix"]
        Path(__file__).with_name("litter.tmp").write_text("")
        Path(__file__).with_name("litter.tmp").unlink()


class Obliging(Product):
    name = "obliging"

    def times(self, x):
        return x @ self.matrix[: x.shape[1]]


class Overcharged(Product):
    """Formula and counter disagree, and nothing says why."""

    name = "overcharged"
    backend = "torch"

    def build(self, given, run):
        self.matrix = run.put(given["matrix"])

    def flops(self, phase, case, tally):
        return Flops(0.0 if phase == "build" else 1e6)


class Excused(Overcharged):
    name = "excused"

    def flops(self, phase, case, tally):
        """The counter also sees work that a real kernel skips."""
        return Flops(0.0 if phase == "build" else 1e6)


class CheapBuild(Overcharged):
    name = "cheap-build"

    def build(self, given, run):
        self.matrix = run.put(given["matrix"])
        self.matrix @ self.matrix

    def flops(self, phase, case, tally):
        return Flops(0.0 if phase == "build" else 2.0 * 64 * 256 * 256)
