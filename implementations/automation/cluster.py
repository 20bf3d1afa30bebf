"""A simulated cluster that replays a table of trained configurations, event by event.

Time is simulated: one unit is one epoch on a worker of speed 1. A trial of speed factor f takes f times the epoch's cost for
each epoch, f drawn lognormal(0, sigma) for each trial, whichever method draws it. Training resumes from checkpoints, so a trial
pays for the epochs it has not done yet. The cluster stops at `horizon`; what runs then is cut, its finished epochs count.

A method sees validation errors only of epochs that its trials have finished; asking for more raises `Wrong`.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from effbench import Wrong


@dataclass(frozen=True)
class Job:
    """What a finished job reports: the trial has reached `epoch` with this validation error (NaN where it failed)."""

    worker: int
    trial: int
    first: int  # epochs done before the job
    epoch: int  # epochs done after it; fewer than asked for where the trial failed
    error: float
    start: float
    end: float

    @property
    def failed(self) -> bool:
        return not np.isfinite(self.error)


class Cluster:
    """`workers` workers with a shared pool of trials. `table`: val_error [C, E], epoch_cost [C], settings [C, d]."""

    def __init__(self, table: dict, *, workers: int, sigma: float, horizon: float, seed: int):
        if workers < 1 or sigma < 0 or not horizon > 0:
            raise ValueError(f"a cluster needs workers >= 1, sigma >= 0, horizon > 0, not {workers}, {sigma}, {horizon}")
        self._error = np.asarray(table["val_error"], float)
        self._cost = np.asarray(table["epoch_cost"], float)
        self._settings = np.asarray(table["settings"], float)
        self.configurations, self.epochs = self._error.shape
        # First epoch without a finite error, counted from 1; epochs + 1 where there is none.
        bad = ~np.isfinite(self._error)
        self._fails = np.where(bad.any(1), bad.argmax(1), self.epochs) + 1
        self.workers, self.sigma, self.horizon = workers, float(sigma), float(horizon)
        self.clock = 0.0
        # Streams of their own: orders and speeds of the trials are the same for every method, whatever else it draws.
        self._orders, self._speeds = (np.random.default_rng([seed, stream]) for stream in (0, 1))
        self._configuration: list[int] = []
        self._speed: list[float] = []
        self._drawn = 0
        self._reached: list[int] = []
        self._busy: set[int] = set()  # trials that run
        self._idle = list(range(workers))
        self._queue: list[tuple] = []
        self.log: list[Job] = []  # finished and cut jobs, in the order in which they ended

    def sample(self) -> int:
        """A new trial: the next configuration in an order of the replicate's own, without repeats until the table is used up."""
        if self._drawn == len(self._configuration):
            self._configuration += self._orders.permutation(self.configurations).tolist()
            self._speed += np.exp(self.sigma * self._speeds.standard_normal(self.configurations)).tolist()
        self._drawn += 1
        self._reached.append(0)
        return self._drawn - 1

    def settings(self, trial: int) -> np.ndarray:
        """The configuration of a trial, as a row of the table's settings."""
        return self._settings[self.configuration(trial)].copy()

    def configuration(self, trial: int) -> int:
        if not 0 <= trial < self._drawn:
            raise Wrong(f"trial {trial} was never drawn ({self._drawn} were)")
        return self._configuration[trial]

    def reached(self, trial: int) -> int:
        """Epochs that a trial has finished."""
        self.configuration(trial)
        return self._reached[trial]

    def error(self, trial: int, epoch: int) -> float:
        """Validation error of a trial after an epoch that it has finished; epochs count from 1."""
        if not 1 <= epoch <= self.reached(trial):
            raise Wrong(f"validation error of trial {trial} at epoch {epoch} was asked for, it has finished {self._reached[trial]}")
        return float(self._error[self._configuration[trial], epoch - 1])

    def failed(self, trial: int) -> bool:
        return self._fails[self.configuration(trial)] <= self._reached[trial]

    def idle(self) -> tuple[int, ...]:
        return tuple(self._idle)

    def over(self) -> bool:
        return self.clock >= self.horizon

    def start(self, worker: int, trial: int, epoch: int) -> None:
        """Train a trial until `epoch` epochs are done, on an idle worker."""
        done = self.reached(trial)
        if worker not in self._idle:
            raise Wrong(f"worker {worker} is not idle (idle: {self._idle})")
        if trial in self._busy:
            raise Wrong(f"trial {trial} runs already")
        if self.failed(trial):
            raise Wrong(f"trial {trial} has failed and cannot go on")
        if not done < epoch <= self.epochs:
            raise Wrong(f"trial {trial} has finished {done} of {self.epochs} epochs and cannot be trained to {epoch}")
        if self.over():
            raise Wrong(f"the cluster was over at {self.horizon:g}")
        configuration = self._configuration[trial]
        last = min(epoch, int(self._fails[configuration]))
        end = self.clock + (last - done) * self._cost[configuration] * self._speed[trial]
        self._idle.remove(worker)
        self._busy.add(trial)
        heapq.heappush(self._queue, (end, worker, trial, done, last, self.clock))

    def wait(self) -> Job | None:
        """Let time pass until a job ends and return it; None where the horizon comes first or at once."""
        if not self._queue:
            raise Wrong("waited while nothing runs: the search would never go on")
        end, worker, trial, first, last, start = self._queue[0]
        if end >= self.horizon:
            self._cut()
            return None
        heapq.heappop(self._queue)
        self.clock = end
        error = float(self._error[self._configuration[trial], last - 1])
        self._release(job := Job(worker, trial, first, last, error, start, end))
        return job

    def _release(self, job: Job) -> None:
        self._reached[job.trial] = job.epoch
        self._busy.discard(job.trial)
        self._idle.append(job.worker)
        self._idle.sort()
        self.log.append(job)

    def _cut(self) -> None:
        """Stop everything at the horizon; epochs that were finished by then stay in the log."""
        self.clock = self.horizon
        for end, worker, trial, first, last, start in sorted(self._queue):
            span = (end - start) / (last - first)
            epoch = min(first + int((self.horizon - start) / span + 1e-9), last)
            error = float(self._error[self._configuration[trial], epoch - 1]) if epoch else float("nan")
            self._release(Job(worker, trial, first, epoch, error, start, self.horizon))
        self._queue.clear()

    def history(self) -> dict[str, np.ndarray]:
        """Every finished epoch in order of time: `time`, `trial`, `configuration`, `epoch` (from 1), `error`."""
        jobs = [job for job in self.log if job.epoch > job.first]
        counts = np.array([job.epoch - job.first for job in jobs], int)
        step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        trial = np.repeat([job.trial for job in jobs], counts).astype(int)
        epoch = np.repeat([job.first for job in jobs], counts).astype(int) + step
        configuration = np.array(self._configuration, int)[trial] if len(trial) else trial
        span = self._cost[configuration] * np.array(self._speed, float)[trial] if len(trial) else np.zeros(0)
        time = np.repeat([job.start for job in jobs], counts) + step * span
        order = np.lexsort((trial, time))
        columns = {"time": time, "trial": trial, "configuration": configuration, "epoch": epoch}
        columns["error"] = self._error[configuration, epoch - 1]
        return {name: column[order] for name, column in columns.items()}
