"""Probes into costs: FLOPs by formula against the counters, and memory that is given back."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

from ..api.method import Method
from ..measure import memory
from ..measure.counting import TOLERANCE
from .answers import close
from .probing import answer, fresh, outputs, untimed_build
from .session import Session

BUILDING = ("build", "train", "step")
FLOOR = 8 << 20  # bytes that an allocator may keep without it being called a leak


def build_flops(worker: Any) -> dict:
    """The formula of the build against the counter, in one extra build."""
    from ..measure.flops import count

    session: Session = worker.session
    stated = session.build_readings["build.flops"]
    if stated["value"] is None:
        return answer("n.a.", stated["reason"])
    backend = type(session.method).backend
    if backend not in ("torch", "jax"):
        return answer("n.a.", f"no counter looks into {backend} code: formula only")
    new = fresh(session)
    try:
        counted = count(lambda: untimed_build(worker, new, session.seed), backend)
    except Exception as error:
        return answer("n.a.", f"the counter failed: {type(error).__name__}: {str(error)[:120]}")
    if counted.executed is None:
        return answer("n.a.", counted.reason)
    return agreement(stated["value"], counted.executed, session.method, BUILDING)


def serve_flops(worker: Any, readings: dict, case: str) -> dict:
    """Judge the readings `serve.flops` and `serve.flops.counter` of one record."""
    stated, counted = readings["serve.flops"], readings["serve.flops.counter"]
    if stated["value"] is None or stated.get("how") == "counter only":
        return answer("n.a.", stated.get("reason") or "the method has no formula: counter only")
    if counted["value"] is None:
        return answer("n.a.", f"formula only: {counted['reason']}")
    found = agreement(stated["value"], counted["value"], worker.session.method)
    third = third_opinion(worker, case)
    if third:
        off = abs(third - counted["value"]) / max(third, 1.0)
        found["detail"] += ", fvcore agrees" if off <= TOLERANCE else f", fvcore {third:.4g}"
    return found


def agreement(formula: float, counted: float, method: Method, words: tuple[str, ...] = ()) -> dict:
    """`words`: what a sentence about the counter must speak of besides; an excuse for calls is none for the build."""
    off = abs(formula - counted) / max(abs(counted), abs(formula), 1.0)
    text = f"formula {formula:.4g}, counter {counted:.4g} FLOP"
    if off <= TOLERANCE:
        return answer("ok", text)
    if why := excuse(method, words):
        return answer("ok", f"{text}, {off:.1%} apart; its text says why: {why}")
    return answer("FAIL", f"{text}, {off:.1%} apart, and the docstring of flops() does not speak of the counter")


def excuse(method: Method, words: tuple[str, ...] = ()) -> str:
    """The sentence in the docstring of the method's own formulas that speaks of the counter, and of one of `words` if there are any."""
    for name in ("flops", "step_flops"):
        doc = " ".join((getattr(type(method), name).__doc__ or "").split())
        if getattr(type(method), name) is not getattr(Method, name) and "count" in doc.lower():
            said = [part for part in doc.split(". ") if "count" in part.lower()]
            said = [part for part in said if not words or any(word in part.lower() for word in words)]
            if said:
                return said[0][:160]
    return ""


def third_opinion(worker: Any, case: str) -> float | None:
    """fvcore's count of one call in FLOPs, where it is installed and the method holds a torch module that answers alike."""
    torch = sys.modules.get("torch")
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        return None
    if torch is None:
        return None
    session: Session = worker.session
    batch, expected = session.batches(case)[0], outputs(worker, session, case)[0]
    for value in vars(session.method).values():
        if isinstance(value, torch.nn.Module):
            try:
                inputs = batch if isinstance(batch, tuple) else (batch,)
                with torch.no_grad():
                    if close(session.backend.to_numpy(value(*inputs)), expected):
                        counter = FlopCountAnalysis(value, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
                        return 2.0 * counter.total()  # it counts multiply-adds
            except Exception:
                continue
    return None


def releasing(worker: Any) -> dict:
    """Build and drop three times: the process must not keep more than one build's worth."""
    session: Session = worker.session
    if memory.resident() is None:
        return answer("n.a.", "this system does not tell a process its resident memory")
    start, after, held = settled(), [], 0
    for _ in range(3):
        new = fresh(session)
        untimed_build(worker, new, session.seed)
        held = max(held, settled() - (after[-1] if after else start))
        del new
        after.append(settled())
    growth = after[-1] - after[0]
    text = f"{growth / 2**20:.1f} MiB more after two further builds; one build holds {held / 2**20:.1f} MiB"
    return answer("FAIL", text) if growth > max(held, FLOOR) else answer("ok", text)


def settled() -> int:
    """Bytes resident after garbage is gone and the allocator has given back what it can."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass
    return memory.resident() or 0
