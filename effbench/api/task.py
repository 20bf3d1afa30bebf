"""What a problem implements: data, fairness, metrics and scoring. A method never sees the hidden part and never times itself.

All class attributes are literals, read by the registry without an import.
"""

from __future__ import annotations

from typing import Any, ClassVar

from .method import Method
from .values import Case, Data, Metric


class Task:
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    title: ClassVar[str] = ""
    interface: ClassVar[type[Method]] = Method
    phases: ClassVar[tuple[str, ...]] = ("build", "serve")
    data: ClassVar[tuple[Data, ...]] = ()  # the first is the default
    cases: ClassVar[tuple[Case, ...]] = ()
    metrics: ClassVar[dict[str, Metric]] = {}  # names without the prefix "quality."
    baselines: ClassVar[tuple[str, ...]] = ()  # the first is what ratios are taken to
    prepares: ClassVar[tuple[str, ...] | None] = None  # data arguments that `prepare` reads; None means all of them
    replicates: ClassVar[int] = 1  # builds with seeds of their own inside one trial
    objective: ClassVar[str] = ""  # the key of `evaluate` (validation) that tuning looks at; direction from `metrics`

    def prepare(self, data: Data, size: str, seed: int, run) -> dict[str, Any]:
        """Prepared material shared by methods: arrays, numbers, text. Made once, cached as npz, charged to no method."""
        return {}

    def given(self, data: Data, size: str, seed: int, prepared: dict) -> Any:
        """All that a method may see: train, validation and calibration data, metric, k."""
        return None

    def hidden(self, data: Data, size: str, seed: int, prepared: dict) -> Any:
        """Test inputs and answers; loaded after the build."""
        return None

    def evaluate(self, method, given) -> dict[str, float]:
        """On validation data, outside the clock: one row of the curve, and what tuning looks at."""
        return {}

    def batches(self, case: Case, hidden, run) -> list:
        """At least three different inputs of `call`, already on the device (`run.put`)."""
        return []

    def bad_batches(self, case: Case, hidden, run) -> dict[str, Any]:
        """Inputs of `call` by label that every method has to refuse with a message; `effbench check` tries them."""
        return {}

    def call(self, method, batch, case: Case) -> Any:
        """The one timed line of phase serve."""
        raise NotImplementedError(f"task '{self.name}' has a serve phase but no call()")

    def items(self, batch, output) -> int:
        """Queries, images or tokens answered by one call: the unit of throughput."""
        return len(batch)

    def score(self, method, given, hidden, case: Case | None, outputs: list) -> dict[str, Any]:
        """Metric name to a number, an array over samples, or a Curve. In the worker, after the last timed call.

        `outputs` holds one output per batch, as numpy. Without a serve phase, case is None and outputs is empty; it is then
        called once for each replicate. Raise `Wrong` where an answer breaks the contract.
        """
        return {}

    def unfair(self, record: dict, other: dict) -> str:
        """Why these two records may not be compared (budget, active FLOPs, parameters), or ""."""
        return ""
