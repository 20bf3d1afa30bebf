"""The tables: features float64 [n, d], labels int64 [n], and how their rows are split. Numpy only.

Small tables are split anew by every seed: a quarter to test, an eighth of the rest to validate, as the authors' code does it
(12.5 %). Fashion-MNIST keeps its own test file. `redundancy` is drawn anew by every seed, rule of labels and places of columns too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effbench import DataError, dataset

TEST, VALIDATION = 0.25, 0.125
LAST_TRAIN_ROW = 55_000  # of Fashion-MNIST's 60,000; the others validate

SIGNALS, COPIES, RHO = 5, 4, 0.95
GROUPS = SIGNALS + 2  # each signal with its copies, and the two halves of the pair

# scikit-learn's own files: name, shape, sha256 of the table as float64.
PACKAGED = {
    "breast-cancer": ("breast_cancer.csv", (569, 31), "54cbf95e148c6eed11e8b2ac1637b5f44a8053293412279de71c47b345e9eb50"),
    "wine": ("wine_data.csv", (178, 14), "b6ff7c6847be41ee158bdf2267e98a97e1d240566564154aba1c0cc61f551fc3"),
}


@dataclass(frozen=True, eq=False)
class Table:
    """rows: (train, validation, test) as indices into x and y. groups: for each column the signal that it carries, -1 for none."""

    x: np.ndarray
    y: np.ndarray
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    groups: np.ndarray | None = None


def read(name: str, args, seed: int) -> Table:
    """The table of a data set of the task, split for this seed."""
    rng = np.random.default_rng((seed, 1))
    if name == "fashion-mnist":
        return fashion(int(args["rows"]), rng)
    if name == "redundancy":
        return redundancy(int(args["rows"]), int(args["columns"]), rng)
    if name == "digits":
        found = dataset("digits")
        x, y = found["images"], found["labels"]
    elif name == "satellite":
        found = dataset("satellite")
        x, y = found["features"].astype(np.float64), np.unique(found["labels"], return_inverse=True)[1]
    else:
        x, y = packaged(name)
    return Table(x, y.astype(np.int64), split(len(x), rng))


def split(n: int, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    order = rng.permutation(n)
    test = round(TEST * n)
    validation = test + round(VALIDATION * (n - test))
    return order[validation:], order[test:validation], order[:test]


def packaged(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A table out of scikit-learn's files, read without importing it (seconds, and memory that others would be charged for)."""
    file, shape, known = PACKAGED[name]
    spec = importlib.util.find_spec("sklearn")
    places = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(places[0]) / "datasets" / "data" / file if places else None
    if path is None or not path.is_file():
        raise DataError(
            f"'{file}' is part of scikit-learn, and not found", where=name, remedy="Run `pip install scikit-learn`, 1.4 or newer."
        )
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    found = hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()
    if table.shape != shape or found != known:
        raise DataError(
            f"not the known table (shape {table.shape}, sha256 {found[:16]}...)", where=str(path), remedy="Install another version."
        )
    return table[:, :-1], table[:, -1].astype(np.int64)


def fashion(rows: int, rng) -> Table:
    if not 100 <= rows <= LAST_TRAIN_ROW:
        raise DataError(f"rows={rows}", where="fashion-mnist", remedy=f"Use 100 to {LAST_TRAIN_ROW} training rows.")
    found = dataset("fashion-mnist")
    train = rng.choice(LAST_TRAIN_ROW, rows, replace=False)
    parts = [found["train_images"][train], found["train_images"][LAST_TRAIN_ROW:], found["test_images"]]
    labels = [found["train_labels"][train], found["train_labels"][LAST_TRAIN_ROW:], found["test_labels"]]
    ends = np.cumsum([0, *map(len, parts)])
    x = np.concatenate(parts).reshape(ends[-1], -1).astype(np.float32)
    return Table(x, np.concatenate(labels).astype(np.int64), tuple(np.arange(a, b) for a, b in itertools.pairwise(ends)))


def redundancy(rows: int, columns: int, rng) -> Table:
    """Two classes from 5 independent signals and a pair of which neither half tells anything alone (XOR of signs).

    Each signal has 4 copies at correlation 0.95, all else is noise: filters that look at one column at a time take copies and miss
    the pair.
    """
    used = SIGNALS * (1 + COPIES) + 2
    if columns < used or rows < 100:
        raise DataError(f"columns={columns}, rows={rows}", where="redundancy", remedy=f"Use at least {used} columns and 100 rows.")
    x = rng.standard_normal((rows, columns))
    signals, pair = x[:, :SIGNALS].copy(), x[:, used - 2 : used]
    copies = np.repeat(signals, COPIES, axis=1)
    x[:, SIGNALS : used - 2] = RHO * copies + np.sqrt(1 - RHO**2) * x[:, SIGNALS : used - 2]
    logit = 1.5 * signals.sum(1) + 3.0 * np.sign(pair.prod(1))
    y = (rng.uniform(size=rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    groups = np.full(columns, -1)
    groups[:SIGNALS], groups[SIGNALS : used - 2] = np.arange(SIGNALS), np.repeat(np.arange(SIGNALS), COPIES)
    groups[used - 2 : used] = SIGNALS, SIGNALS + 1
    place = rng.permutation(columns)
    return Table(x[:, place], y, split(rows, rng), groups[place])
