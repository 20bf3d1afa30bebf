"""Readings that follow from others once the rounds are over: the share of the machine's roof, compile time apart."""

from __future__ import annotations

from typing import Any

from ..api.record import reading
from ..measure import roofline


def roof_readings(readings: dict[str, dict], roofs: dict[str, Any] | None, *, dtype: str) -> dict[str, dict]:
    """`serve.roof` and `serve.bytes` of a served setting; {} where this machine has not been calibrated.

    The share is executed FLOPs over the median latency over the measured peak of the run's dtype. Work on data that a method narrows
    itself (int8) can exceed 1 by right; a share above every measured roof says that the formula or the clock is wrong.
    """
    if not roofs:
        return {}
    moved = readings.get("serve.bytes") or reading(None, "B", reason="its formula has no bytes")
    return {"serve.bytes": moved, "serve.roof": _roof(readings, moved.get("value"), roofs, dtype or "float32")}


def _roof(readings: dict[str, dict], moved: float | None, roofs: dict[str, Any], dtype: str) -> dict:
    latency = readings.get("serve.latency", {})
    flops, seconds = readings.get("serve.flops", {}).get("value"), latency.get("value")
    if not seconds:
        return reading(None, "1", reason="no latency was measured")
    if flops is None and moved is None:
        return reading(None, "1", reason="neither FLOPs nor bytes of a call are known")
    found = roofline.share(flops, moved, seconds, roofs, dtype)
    shares = {"compute": found.compute, "memory": found.memory}
    bound = found.bound or next((name for name, value in shares.items() if value is not None), "")
    if not bound:
        return reading(None, "1", reason=f"this machine's roof for {dtype} was not measured")
    rate, unit = (roofs["matmul"][dtype], "FLOP/s") if bound == "compute" else (roofs["copy"], "B/s")
    how = f"{bound} bound" if found.bound else f"{bound} roof only"
    how = f"{how}: {rate:.3g} {unit} {dtype}"
    if found.narrower:
        how += "; above it: computes in a narrower type?"
    elif found.reason:
        how += f"; IMPOSSIBLE: {found.reason}"
    value = shares[bound]
    ends = {name: value * seconds / latency[of] for name, of in (("low", "high"), ("high", "low")) if latency.get(of)}
    return reading(value, "1", how=how, **ends)


def compile_reading(backend: str, reported: float | None, first: float | None, median: float | None) -> dict[str, dict]:
    """`serve.compile_time`: what the framework reported during the timed turns, else the first call less the median call."""
    if reported is not None:
        return {"serve.compile_time": reading(reported, "s", how="trace, lower, compile in the turns, by the framework's events")}
    if backend != "jax" or first is None or median is None:
        return {}
    return {"serve.compile_time": reading(max(0.0, first - median), "s", how="first call less the median call")}
