"""Counts the FLOPs that one call executes, by looking at the operations it dispatches.

`executed` is matmul-like work: products, convolutions, attention, recurrent layers, FFTs, dense factorisations, distances.
`other` is element-wise, reduction, look-up and comparison work, in elements touched (the larger of input and output), never
added to `executed`. An outer product, and a product written as broadcast, multiply and sum, are element-wise work and land
there. What was seen but is neither goes to `uncounted`, so that a zero is never mistaken for "nothing to do".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counted:
    """FLOPs of one call. `executed` is None where nothing could be counted; `reason` then says why."""

    executed: float | None
    by_op: Mapping[str, float] = field(default_factory=dict)  # operation -> FLOPs; sums to `executed`
    uncounted: tuple[str, ...] = ()  # operations seen whose work is not in `executed` or `other`
    counter: str = "none"  # "torch-flop-counter" | "jaxpr" | "none"
    other: float = 0.0  # elements touched by element-wise, reduction and look-up operations
    elementwise: Mapping[str, float] = field(default_factory=dict)  # operation -> elements; sums to `other`
    second: Mapping[str, float] = field(default_factory=dict)  # further counters' answers, as {"xla": 1.2e6}; never averaged in
    reason: str = ""

    def coverage(self) -> str:
        """One line for a person: what was counted by what, and what was not."""
        if self.executed is None:
            return f"not counted: {self.reason}"
        text = f"{self.executed:.6g} FLOP in {len(self.by_op)} kinds of operation ({self.counter}), {self.other:.3g} elements of other work"
        return text + (f"; not counted: {', '.join(self.uncounted)}" if self.uncounted else "; every operation accounted for")


def count(call: Callable, backend: str, *args: Any) -> Counted:
    """Count one `call(*args)` of a method of `backend` ("torch", "jax", "numpy" or "native").

    torch: the call really runs, once, with compilation and the fused encoder path off; no gradient mode is changed.
    jax: the call is traced, not run. numpy and native code cannot be looked into: `executed` is None with a reason.
    Exceptions of the call itself pass through.
    """
    if backend == "torch":
        from .flops_torch import count_torch

        return count_torch(call, *args)
    if backend == "jax":
        from .flops_jax import count_jax

        return count_jax(call, *args)
    return Counted(None, reason=f"no counter looks into {backend} code: formula only")


class Ledger:
    """Collects counts while operations go by; turned into a `Counted` at the end."""

    def __init__(self):
        self.by_op: dict[str, float] = {}
        self.elementwise: dict[str, float] = {}
        self.uncounted: dict[str, None] = {}  # a set that keeps the order of appearance

    def work(self, name: str, flops: float, times: float = 1) -> None:
        self.by_op[name] = self.by_op.get(name, 0.0) + float(flops) * times

    def touch(self, name: str, elements: float, times: float = 1) -> None:
        self.elementwise[name] = self.elementwise.get(name, 0.0) + float(elements) * times

    def miss(self, name: str) -> None:
        self.uncounted[name] = None

    def executed(self) -> float:
        return float(sum(self.by_op.values()))

    def merge(self, inner: Ledger, times: float = 1) -> None:
        for name, flops in inner.by_op.items():
            self.work(name, flops, times)
        for name, elements in inner.elementwise.items():
            self.touch(name, elements, times)
        self.uncounted.update(inner.uncounted)

    def counted(self, counter: str, **more) -> Counted:
        return Counted(
            executed=self.executed(),
            by_op=dict(self.by_op),
            uncounted=tuple(self.uncounted),
            counter=counter,
            other=float(sum(self.elementwise.values())),
            elementwise=dict(self.elementwise),
            **more,
        )
