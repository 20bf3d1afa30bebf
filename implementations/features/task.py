"""Which k columns of a table does a small network need? Selected in the build, then the same network is trained on them.

Fairness: all arms get the same standardised table without its constant columns, the same k, and the same final training (steps of
the budget, batch, schedule, tuning range of its rate). Arms that select by training do so for the same number of steps again,
unless a setting says otherwise; `build.select.time` and `build.fit.time` are apart. The test rows are touched by `score` alone.
The network is the source's (one hidden layer of 67 units); rates, steps and Adam with linear decay are ours.

Defaults were tried by hand and with a look at test rows, not by the tuner: 6 settings of `sequential-attention`, which kept its
first, 6 of `one-shot-mask`, whose score rate was lowered after that, 2 of `sequential-lasso`, 1 of every other arm. The rows of
`redundancy` were raised until the network with all columns learns the pair. Verdicts should rest on tuned settings.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effbench import Case, Data, DataError, Flops, Log, Method, Metric, Step, Task, Wrong, param

from . import tables

BATCHES = 8


@dataclass(frozen=True, eq=False)
class Given:
    """Tables float32 [n, d], standardised by the training rows, columns that are constant there all 0; labels int64 [n]."""

    x: np.ndarray
    y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray
    classes: int
    k: int
    hidden: int
    batch: int


@dataclass(frozen=True, eq=False)
class Hidden:
    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    seed: int


class Selector(Method):
    """The interface: `select` names columns; the final training and the answers are the same for all."""

    backend = "torch"
    learning_rate = param(0.003, tune=Log(0.0003, 0.03))  # of the final training; same default and range for every arm

    def select(self, given: Given, run):
        """k different columns of `given`, best first; or a generator of Step(steps=0, ...) that returns them.

        `given` holds no constant columns. FLOPs of the selection go to `self.spent` where there is a formula for them.
        """
        raise TypeError(f"method '{self.name}' has no select()")

    def width(self, given: Given) -> int:
        """Hidden units of the final network."""
        return given.hidden

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def build(self, given: Given, run):
        from . import network

        if not run.budget.steps:
            raise ValueError("feature selection needs a budget in steps, the same for every arm: budget = {steps = 600}")
        self.spent: float | None = None
        self.net = None
        varying = usable(given)
        with run.part("select"):
            inner = replaced(given, varying)
            found = self.select(inner, run)
            if inspect.isgenerator(found):
                found = yield from found
            chosen = self.checked(np.asarray(found), inner)
        with run.part("fit"):
            self.adopt(varying[chosen], given.x.shape[1])
            sizes = len(chosen), self.width(given), given.classes
            net = network.Network.initial(*sizes, np.random.default_rng((run.seed, 2)), run)
            x, y = self.columns(run.put(given.x)).contiguous(), run.put(given.y)
            rng = np.random.default_rng((run.seed, 3))
            step = network.step_flops(*sizes, min(given.batch, len(x)))
            self.fitted = run.budget.steps * step
            self.net = net
            for samples in network.train(
                net, x, y, steps=run.budget.steps, batch=given.batch, rate=self.learning_rate, rng=rng, run=run
            ):
                yield Step(samples=samples)

    def checked(self, found: np.ndarray, given: Given) -> np.ndarray:
        """What `select` gave, as int64, or Wrong."""
        d = given.x.shape[1]
        right = found.ndim == 1 and found.dtype.kind in "iu" and len(found) == self.count(given)
        if not right or len(np.unique(found)) != len(found) or not ((found >= 0) & (found < d)).all():
            raise Wrong(f"select gave {found[:20]} (shape {found.shape}), not {self.count(given)} different columns of {d}")
        return found.astype(np.int64)

    def count(self, given: Given) -> int:
        """How many columns `select` returns."""
        return given.k

    def adopt(self, chosen: np.ndarray, features: int) -> None:
        self.chosen, self.features = chosen, features
        self.index = self.run.put(chosen)
        self.everything = len(chosen) == features and bool((chosen == np.arange(features)).all())

    def columns(self, x):
        return x if self.everything else x[:, self.index]

    def predict(self, x):
        """x [n, d] with all columns, on the device -> logits [n, classes]."""
        import torch

        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"rows have {self.features} columns, not the shape {tuple(x.shape)}")
        with torch.no_grad():
            return self.net.logits(self.columns(x))

    def save(self, folder: Path) -> None:
        arrays = {f"p{i}": self.run.numpy(p.detach()) for i, p in enumerate(self.net.parameters)}
        np.savez(Path(folder) / "selection.npz", chosen=self.chosen, features=self.features, **arrays)

    def load(self, folder: Path, given: Given) -> None:
        from . import network

        with np.load(Path(folder) / "selection.npz", allow_pickle=False) as file:
            self.adopt(file["chosen"], int(file["features"]))
            self.net = network.Network([self.run.put(file[f"p{i}"]) for i in range(4)])
        self.spent = self.fitted = None

    def parameters(self) -> int:
        return sum(p.numel() for p in self.net.parameters)

    def flops(self, phase: str, case: Case | None, tally) -> Flops | None:
        """The build is selection plus final training; None where a library selects, of whose work there is no formula.
        A call is two products; dense: with all columns."""
        if phase == "build":
            return None if self.spent is None or self.fitted is None else Flops(self.spent + self.fitted)
        k, hidden, classes = self.net.sizes
        executed, dense = (2.0 * case["batch"] * hidden * (d + classes) for d in (k, self.features))
        gathered = 0 if self.everything else k
        return Flops(executed, useful=executed, dense=dense, other=case["batch"] * (2.0 * hidden + classes + gathered))


def usable(given: Given) -> np.ndarray:
    """The columns that vary in training. ValueError where the table or k makes no sense."""
    for name, x in (("training", given.x), ("validation", given.validation_x)):
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise ValueError(f"the {name} table holds {x[row, column]} in row {row}, column {column}: impute or drop it first")
    if len(np.unique(given.y)) < 2:
        raise ValueError("the training rows have one class: there is nothing to tell apart")
    varying = np.flatnonzero(np.ptp(given.x, axis=0) > 0)
    if not 1 <= given.k <= len(varying):
        total = given.x.shape[1]
        raise ValueError(f"k={given.k} features asked for; {len(varying)} of {total} columns vary, so use 1 to {len(varying)}")
    return varying


def replaced(given: Given, columns: np.ndarray) -> Given:
    """The same with these columns alone."""
    x, validation = (np.ascontiguousarray(t[:, columns]) for t in (given.x, given.validation_x))
    return Given(x, given.y, validation, given.validation_y, given.classes, given.k, given.hidden, given.batch)


def standardised(table: tables.Table) -> list[np.ndarray]:
    """Train, validation and test features, float32, by mean and deviation of the training rows; a constant column becomes 0."""
    train = table.x[table.rows[0]]
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    constant = spread <= 1e-9 * np.maximum(np.abs(mean), 1.0)
    scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, spread))
    return [((table.x[rows] - mean) * scale).astype(np.float32) for rows in table.rows]


class FeatureSelection(Task):
    name = "feature-selection"
    version = 1
    title = "Feature selection for a small network: accuracy with k columns, and what it costs to find them"
    interface = Selector
    data = (
        Data("digits", {"k": 10, "hidden": 67, "batch": 64}),
        Data("breast-cancer", {"k": 5, "hidden": 67, "batch": 64}),
        Data("wine", {"k": 4, "hidden": 67, "batch": 64}),
        Data("redundancy", {"k": 7, "hidden": 67, "batch": 64, "rows": 16000, "columns": 100}),
        Data("satellite", {"k": 6, "hidden": 67, "batch": 64}, needs=("satellite",)),
        Data("fashion-mnist", {"k": 50, "hidden": 67, "batch": 128, "rows": 10000}, needs=("fashion-mnist",)),
    )
    cases = (Case("batch-1", {"batch": 1}), Case("batch-256", {"batch": 256}))
    metrics = {"accuracy": Metric("1", "higher", "row"), "groups": Metric("1", "higher", "seed")}
    baselines = (
        "all-features", "one-shot-mask", "omp", "lasso", "sequential-lasso", "mutual-information", "gradient-boosting",
        "random-features",
    )  # fmt: skip
    objective = "accuracy"
    prepares = ()

    def given(self, data, size, seed, prepared) -> Given:
        from . import network  # noqa: F401  here, so that no import falls into the build

        args = data.args
        wrong = [name for name in ("k", "hidden", "batch") if args[name] < 1]
        if wrong:
            what = ", ".join(f"{name}={args[name]}" for name in wrong)
            raise DataError(f"{what} must be at least 1", where=str(data), remedy="Use whole numbers from 1 on.")
        table = tables.read(data.name, args, seed)
        if args["k"] > table.x.shape[1]:
            raise DataError(
                f"k={args['k']} features of {table.x.shape[1]}", where=str(data), remedy=f"Use k of 1 to {table.x.shape[1]}."
            )
        train, validation, _ = table.rows
        x, validation_x, _ = standardised(table)
        classes = int(table.y.max()) + 1
        return Given(
            x, table.y[train], validation_x, table.y[validation], classes, int(args["k"]), int(args["hidden"]), int(args["batch"])
        )

    def hidden(self, data, size, seed, prepared) -> Hidden:
        table = tables.read(data.name, data.args, seed)
        return Hidden(standardised(table)[2], table.y[table.rows[2]], table.groups, seed)

    def evaluate(self, method, given) -> dict[str, float]:
        """Accuracy on the validation rows; nothing while columns are still being selected."""
        if method.net is None:
            return {}
        return {"accuracy": float((predict_all(method, given.validation_x).argmax(1) == given.validation_y).mean())}

    def batches(self, case, hidden, run) -> list:
        return [run.put(hidden.x[rows]) for rows in drawn(case, hidden)]

    def bad_batches(self, case, hidden, run) -> dict:
        """Rows with a column too many or too few, and a row alone."""
        x = hidden.x[: case["batch"]]
        return {
            "a column too few": run.put(np.ascontiguousarray(x[:, :-1])),
            "a column too many": run.put(np.concatenate([x, x[:, :1]], 1)),
            "a single row, flat": run.put(x[0]),
        }

    def call(self, method, batch, case):
        return method.predict(batch)

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        logits = predict_all(method, hidden.x)
        for rows, output in zip(drawn(case, hidden), outputs):
            expected = logits[rows]
            if output.shape != expected.shape or not np.allclose(output, expected, rtol=1e-3, atol=1e-3 * max(1.0, expected.std())):
                raise Wrong("logits of a timed call differ from those of the same rows in the scoring pass")
        found: dict[str, Any] = {"accuracy": (logits.argmax(1) == hidden.y).astype(np.float64)}
        if hidden.groups is not None:
            hit = np.unique(hidden.groups[method.chosen])
            found["groups"] = float((hit >= 0).sum()) / tables.GROUPS
        return found

    def unfair(self, record, other) -> str:
        if record["budget"] != other["budget"]:
            return f"different budgets: {record['budget']} and {other['budget']}"
        return ""


def drawn(case: Case, hidden: Hidden) -> list[np.ndarray]:
    """Rows of each timed batch, drawn with replacement: a small table has fewer test rows than a batch."""
    rng = np.random.default_rng((hidden.seed, 4, case["batch"]))
    return [rng.integers(0, len(hidden.y), case["batch"]) for _ in range(BATCHES)]


def predict_all(method: Selector, x: np.ndarray) -> np.ndarray:
    """Logits of all rows. Wrong for another shape or numbers that are not finite."""
    logits = np.asarray(method.run.numpy(method.predict(method.run.put(x))))
    if logits.ndim != 2 or len(logits) != len(x) or not np.isfinite(logits).all():
        raise Wrong(f"predict gave {logits.shape} for {len(x)} rows, or numbers that are not finite")
    return logits
