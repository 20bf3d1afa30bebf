"""Task `hyperparameter-search`: find good settings of a small network on a cluster whose time is simulated.

Prepared material is a table of random configurations with their errors after each epoch (`table.py`); a search replays it on
a simulated cluster (`cluster.py`), so that hundreds of replicates take seconds. Each replicate has its own order and speeds of
the trials, equal for all methods. Every arm gets the same workers for the same simulated time, `budget` full trainings' worth.

The incumbent is the checkpoint with the lowest validation error that any trial has reached so far, by one rule for all
methods, whether or not the method looked at that epoch. The target is the table's lowest validation error plus 0.5 points.
What this leaves out: noise between two trainings of one configuration (drawn again, it has the same curve), and the overhead of
checkpoints and schedulers.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from effbench import Curve, Data, Method, Metric, Task, Wrong, dataset

from . import table
from .cluster import Cluster, Job

CONFIGURATIONS = {"smoke": (27, 9), "quick": (81, 27), "full": (243, 81)}  # number of them, epochs of a full training
SPLITS = {"satellite": (3500, 1400), "digits": (900, 400)}  # rows for training and for validation, the rest is for the test
MARGIN = 0.005  # above the table's best error: the target
POINTS = 20  # of the regret curve


class Tuner(Method):
    """A search. The loop is here: it offers each idle worker to `propose`, lets time pass, and hands reports to `observe`.

    `cluster.sample()` draws a new trial; `cluster.epochs` is the length of a full training.
    """

    def begin(self, cluster: Cluster) -> None:
        """Set up the state of one search; ValueError where settings make no sense."""

    def propose(self) -> tuple[int, int] | None:
        """(trial, epoch to train it to) for a worker that is free now; None leaves free workers idle until the next report."""
        raise NotImplementedError

    def observe(self, job: Job) -> None:
        """A job has ended: `job.trial` has finished `job.epoch` epochs with validation error `job.error`, or has failed."""

    def workers(self, cluster: Cluster) -> int:
        """How many of the cluster's workers the method uses."""
        return cluster.workers

    def build(self, given, run):
        cluster = given.cluster
        self.begin(cluster)
        spare = cluster.workers - self.workers(cluster)
        while not cluster.over():
            while len(cluster.idle()) > spare and (job := self.propose()):
                cluster.start(cluster.idle()[0], *job)
            if job := cluster.wait():
                self.observe(job)


class HyperparameterSearch(Task):
    name = "hyperparameter-search"
    version = 1
    title = "Hyper-parameter search on a simulated cluster"
    interface = Tuner
    phases = ("build",)
    data = (
        Data("satellite", {"workers": 4, "sigma": 1.0, "budget": 72}, needs=("satellite",)),
        Data("digits", {"workers": 4, "sigma": 1.0, "budget": 24}),
    )
    metrics = {
        "final-regret": Metric("1", "lower", "replicate"),
        "test-error": Metric("1", "lower", "replicate"),
        "validation-error": Metric("1", "lower", "replicate"),
        "time-to-target": Metric("epoch", "lower", "replicate"),
        "worker-time-to-target": Metric("epoch", "lower", "replicate"),
        "target-share": Metric("1", "higher", "replicate"),
        "epochs-spent": Metric("epoch", "lower", "replicate"),
        "idle-share": Metric("1", "lower", "replicate"),
        "wrong-promotions": Metric("1", "lower", "replicate"),
    }
    baselines = ("random-search", "successive-halving")
    replicates = 400
    objective = "validation-error"

    def prepare(self, data, size, seed, run):
        if data.name not in SPLITS:
            raise ValueError(f"unknown data '{data.name}' (known: {', '.join(SPLITS)})")
        arrays = dataset(data.name)
        features = arrays["features"] if "features" in arrays else arrays["images"]
        configurations, epochs = CONFIGURATIONS[size]
        return table.build(
            np.asarray(features, np.float64).reshape(len(features), -1),
            np.asarray(arrays["labels"]),
            sizes=SPLITS[data.name],
            configurations=configurations,
            epochs=epochs,
            seed=seed,
        )

    def given(self, data, size, seed, prepared):
        """`cluster`; `names` of the columns of `cluster.settings(trial)`."""
        visible = {name: prepared[name] for name in ("settings", "val_error", "epoch_cost")}
        workers = int(data.args["workers"])
        horizon = data.args["budget"] * prepared["val_error"].shape[1] / workers
        return SimpleNamespace(
            cluster=Cluster(visible, workers=workers, sigma=data.args["sigma"], horizon=horizon, seed=seed),
            names=table.NAMES,
        )

    def hidden(self, data, size, seed, prepared):
        return SimpleNamespace(test_error=prepared["test_error"], best=float(np.nanmin(prepared["val_error"])))

    def evaluate(self, method, given):
        errors = given.cluster.history()["error"]
        errors = errors[np.isfinite(errors)]
        return {"validation-error": float(errors.min()) if len(errors) else 1.0}

    def score(self, method, given, hidden, case, outputs):
        """One replicate. A search that has found nothing yet has error 1.

        `time-to-target` is in units of one epoch at nominal speed, and *restricted*: a search that misses the target counts
        with the whole horizon, which is the same for all arms; `target-share` says how many reached it.
        `worker-time-to-target` is that times the workers that the method uses; where it is compared with that of a method on
        one worker, the horizon must be long enough for that one as well: look at its `target-share`.
        `wrong-promotions`: of the trials that were trained on after a job that stopped at some epoch, the share that is not
        among the best of all jobs that stopped there, seen from the end (as many of the best as were trained on); 0 without any.
        """
        cluster = given.cluster
        if not cluster.over():
            raise Wrong(f"the search ended at {cluster.clock:g} of {cluster.horizon:g} units of time")
        seen = cluster.history()
        errors = np.where(np.isfinite(seen["error"]), seen["error"], 1.0)
        lowest = np.minimum.accumulate(errors) if len(errors) else errors
        regret = np.append(1.0, lowest) - hidden.best
        hit = np.flatnonzero(lowest <= hidden.best + MARGIN + 1e-12)
        time = float(seen["time"][hit[0]]) if len(hit) else cluster.horizon
        test = 1.0
        if len(errors) and lowest[-1] < 1:
            first = int(np.argmin(errors))
            test = float(hidden.test_error[seen["configuration"][first], seen["epoch"][first] - 1])
        grid = np.geomspace(cluster.horizon / 200, cluster.horizon, POINTS)
        busy = sum(job.end - job.start for job in cluster.log)
        used = method.workers(cluster)
        return {
            "final-regret": float(regret[-1]),
            "test-error": test,
            "validation-error": float(regret[-1] + hidden.best),
            "time-to-target": time,
            "worker-time-to-target": time * used,
            "target-share": float(len(hit) > 0),
            "epochs-spent": float(len(errors)),
            "idle-share": abs(round(1 - busy / (used * cluster.horizon), 9)),
            "wrong-promotions": wrong_promotions(cluster.log),
            "regret": Curve(grid, regret[np.searchsorted(seen["time"], grid, side="right")]),
        }


def wrong_promotions(log: list[Job]) -> float:
    """Share of promotions that hindsight would not repeat; see `HyperparameterSearch.score`."""
    stops: dict[int, dict[int, float]] = {}
    promoted: dict[int, set[int]] = {}
    for job in log:
        stops.setdefault(job.epoch, {})[job.trial] = np.inf if job.failed else job.error
        if job.first:
            promoted.setdefault(job.first, set()).add(job.trial)
    wrong = 0
    for epoch, trials in promoted.items():
        worst = sorted(stops[epoch].values())[len(trials) - 1]
        wrong += sum(stops[epoch][trial] > worst for trial in trials)
    return wrong / max(sum(map(len, promoted.values())), 1)
