"""What the probes of `effbench check` share: an answer, a second session of the same trial, answers at default knobs."""

from __future__ import annotations

from typing import Any

from ..api.method import Method
from .session import Session, Skipped


def answer(outcome: str, detail: str = "") -> dict:
    return {"outcome": outcome, "detail": detail}


def fresh(session: Session, replicates: int = 1) -> Session:
    """A session of the same trial that has built nothing yet."""
    return Session(
        session.task, session.make, backend=session.backend, data=session.data, size=session.size, seed=session.seed,
        device=session.device, dtype=session.dtype, threads=session.threads, budget=session.budget, like=session.like,
        replicates=replicates,
    )  # fmt: skip


def untimed_build(worker: Any, session: Session, seed: int) -> Session:
    """Build on the material of the worker's seed with draws from `seed`, without curve, readings or scores."""
    task = session.task
    session.given = task.given(session.data, session.size, session.seed, worker.prepared)  # anew: a build may use it up
    session.method = method = session.make()
    method.run = run = session._run(seed)
    if reason := method.skip(session.given):
        raise Skipped(reason)
    run.budget = session._allow(method)
    run._counting = True
    session.backend.seed(seed)
    try:
        session._drive(method, run, record_curve=False)
    finally:
        run._counting = False
    return session


def outputs(worker: Any, session: Session, case: str) -> list:
    """numpy answers of a session's method to the worker's own batches, at default knobs."""
    found = worker.session.case(case)
    session.method.configure(**defaults(session.method))
    return [session.backend.to_numpy(session.task.call(session.method, batch, found)) for batch in worker.session.batches(case)]


def defaults(method: Method) -> dict:
    return {name: setting.default for name, setting in method.settings("knob").items()}
