"""FLOPs of one call: the method's formula and the framework's counter side by side, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..api.record import reading
from ..api.values import Flops

TOLERANCE = 0.01


def serve_flops(formula: Flops | None, call: Callable[[], Any], backend: str, calls: int = 1) -> dict[str, dict]:
    """Readings `serve.flops` (executed matmul-like work, formula first), `.counter`, `.useful`, `.dense`, `.other`; `serve.bytes` where the formula has it.

    `call` makes `calls` calls; the readings are per call.
    """
    counted, reason = count(call, backend)
    counted = None if counted is None else counted / calls
    out = {"serve.flops.counter": reading(counted, "FLOP", how=f"counter; {reason}" if reason else "counter", reason=reason)}
    if formula is not None:
        out["serve.flops"] = reading(formula.executed, "FLOP", how=agreement(formula.executed, counted, reason))
        for name in ("useful", "dense", "other"):
            if getattr(formula, name) is not None:
                out[f"serve.flops.{name}"] = reading(getattr(formula, name), "FLOP", how="formula")
        if formula.bytes is not None:
            out["serve.bytes"] = reading(formula.bytes, "B", how="formula, the least that has to move")
    elif counted is not None:
        out["serve.flops"] = reading(counted, "FLOP", how="counter only" + (f", {reason}" if reason else ""))
    else:
        out["serve.flops"] = reading(None, "FLOP", reason=f"no formula, and {reason}")
    return out


def agreement(formula: float, counted: float | None, reason: str = "") -> str:
    """How far formula and counter agree; `reason` is what the counter could not see."""
    if counted is None:
        return "formula only"
    if counted == 0 and formula > 0:  # a kernel launched past the dispatcher (Triton, a library): nothing to compare with
        return "formula only, the counter saw no counted operation" + (f" ({reason})" if reason else "")
    difference = abs(formula - counted) / max(abs(counted), 1.0)
    text = "formula, counter agrees" if difference <= TOLERANCE else f"formula, counter differs by {difference:.1%}"
    return f"{text} ({reason})" if reason else text


def warm(backend: str) -> None:
    """Make the counter load what it loads when first used."""
    if backend == "torch":
        import torch

        matrix = torch.ones(2, 2)
        count(lambda: matrix @ matrix, backend)


def count(call: Callable[[], Any], backend: str) -> tuple[float | None, str]:
    """What the framework's counter saw in one call, or None with a reason."""
    if backend in ("numpy", "native"):
        return None, f"no counter sees inside {backend} code"
    try:
        from .flops import count as counter
    except ImportError:
        return None, "the counter is not installed"
    try:
        counted = counter(call, backend)
    except Exception as error:
        return None, f"the counter failed ({type(error).__name__}: {str(error)[:120]})"
    if counted.uncounted:
        return counted.executed, f"not counted: {', '.join(counted.uncounted)}"
    return counted.executed, counted.reason
