"""What methods that wrap an outside library share: a reason where it is missing, and how faiss is set up."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from .task import VectorIndex


def missing(*modules: str) -> str:
    """Why a library cannot be used, or "". Looks the modules up without importing them."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):  # a parent package is missing, or is itself broken
            found = False
        if not found:
            return f"{module.split('.')[0]} is not installed: pip install 'effbench[search]'"
    return ""


class OutsideIndex(VectorIndex):
    """`modules`: what must be installed; `files`: what the library writes. Answers are int64, -1 where it found fewer."""

    backend = "native"
    modules = ()
    files = ()

    def skip(self, given):
        if self.run.dtype != "float32":
            return f"searches in float32 only, not {self.run.dtype}"
        return missing(*self.modules)

    def save(self, folder):
        """The library's own files as plain bytes in one npz: nothing in an index folder can be unpickled or run."""
        with tempfile.TemporaryDirectory() as place:
            self.write(Path(place))
            files = {path.name: np.fromfile(path, np.uint8) for path in sorted(Path(place).iterdir())}
        np.savez(folder / "index.npz", **files)

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file, tempfile.TemporaryDirectory() as place:
            for name in file.files:
                if name not in self.files:
                    raise ValueError(f"{folder / 'index.npz'} holds '{name}', which no index of {self.name} has")
                file[name].tofile(Path(place) / name)
            self.read(Path(place))

    def write(self, folder: Path):
        """Write `files`, or some of them, as the library does."""
        raise NotImplementedError

    def read(self, folder: Path):
        """Restore what `index` made; the folder is gone afterwards."""
        raise NotImplementedError

    def positive(self, *names: str):
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")

    def not_negative(self, *names: str):
        for name in names:
            if not getattr(self, name) >= 0:  # written so that NaN fails
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)!r}")


class FaissIndex(OutsideIndex):
    """An index that faiss reads and writes itself; `self.faiss` is the module, set up by `library`."""

    modules = ("faiss",)
    files = ("index.faiss",)

    def library(self):
        with self.run.part("import"):
            import faiss
        faiss.omp_set_num_threads(self.run.threads)
        self.faiss = faiss
        return faiss, faiss.METRIC_L2 if self.metric == "l2" else faiss.METRIC_INNER_PRODUCT

    def write(self, folder):
        self.faiss.write_index(self.index_, str(folder / "index.faiss"))

    def read(self, folder):
        self.library()
        self.index_ = self.faiss.read_index(str(folder / "index.faiss"))
        self.restored()

    def restored(self):
        """Whatever hangs on the index and is not in the file."""


class FaissLists(FaissIndex):
    """Inverted lists of faiss: `self.inverted` is the index that holds them."""

    def restored(self):
        self.inverted = self.faiss.extract_index_ivf(self.index_)
        lists = self.inverted.invlists
        self.sizes = np.array([lists.list_size(i) for i in range(self.inverted.nlist)])

    def train_and_add(self, index, base, iterations):
        """Seeded clustering over at most 256 rows a list, faiss's own default; a small base is no reason for a warning."""
        inverted = self.faiss.extract_index_ivf(index)
        inverted.cp.seed, inverted.cp.niter, inverted.cp.min_points_per_centroid = self.run.seed % 2**31, iterations, 1
        with self.run.part("train"):
            index.train(base)
        with self.run.part("add"):
            index.add(base)
        self.index_ = index
        self.restored()

    def count(self, queries, leaves):
        """Tally the rows in the lists that a search of `queries` reads; looked up again, in the untimed pass only."""

        def points():
            return int(self.sizes[self.inverted.quantizer.search(queries, leaves)[1]].sum())

        asked = len(queries)
        self.run.tally(queries=asked, points=points, distances=lambda: asked * self.inverted.nlist + points())
