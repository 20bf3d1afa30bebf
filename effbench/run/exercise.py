"""One trial in the calling process, for tests and notebooks: the code that a worker runs, without the isolation."""

from __future__ import annotations

from typing import Any

from ..api.method import Method
from ..api.task import Task
from ..api.values import Budget, Data
from .session import Session


def exercise(
    task: type[Task], method: type[Method], *, data: str = "", size: str = "smoke", seed: int = 0, device: str = "cpu",
    budget: Budget | None = None, cases: tuple[str, ...] = (), knobs: tuple[dict, ...] = ({},), replicates: int | None = None,
    seconds: float = 0.01, dtype: str = "float32", **settings,
) -> dict[str, Any]:  # fmt: skip
    """One trial in this process: {"build": readings, "quality", "curve", (case, knobs): readings}. `data` as in a suite."""
    from ..backends import get
    from ..plan.suite import parse_data

    chosen = parse_data(data or task.data[0].name, task.data, where=task.name) if task.data else Data("none")
    session = Session(
        task(), lambda: method(**settings), backend=get(method.backend), data=chosen, size=size, seed=seed, device=device, dtype=dtype,
        budget=budget, like=lambda: method(**settings), replicates=replicates,
    )  # fmt: skip
    prepared, _ = session.prepare()
    session.build(prepared)
    out: dict[Any, Any] = {
        "build": session.build_readings,
        "quality": session.quality,
        "curve": session.curve,
        "notes": session.notes,
    }
    if "serve" not in task.phases:
        return out
    from ..measure.latency import turn

    session.open_serve(prepared)
    for name in cases or tuple(case.name for case in task.cases if size in case.sizes):
        for setting in ((name, tuple(sorted(items.items()))) for items in knobs):
            call, batches = session.call(setting), session.batches(name)
            timed = turn(call, batches, seconds=seconds, synchronise=session.backend.synchronise)
            session.remember(setting, timed.last_index, timed.last_output)
            out[setting] = session.finish(setting)
    return out
