"""jax on whatever it was started on. The device of a worker is set by JAX_PLATFORMS before jax is imported."""

from __future__ import annotations

import jax
import numpy

from ..measure.compiling import CompileClock

_compiling = CompileClock()
jax.monitoring.register_event_duration_secs_listener(_compiling.report)
PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}


def put(array, device: str):
    array = numpy.asarray(array)
    # Without x64 jax would silently narrow; methods that need float64 enable it themselves.
    return jax.device_put(array, jax.devices(PLATFORMS[device])[0])


def to_numpy(value):
    def leaf(x):
        x = numpy.asarray(x)
        return x.astype(numpy.float32) if x.dtype.name in ("bfloat16", "float16") else x

    return jax.tree_util.tree_map(leaf, value)


def synchronise(value=None) -> None:
    if value is not None:
        jax.block_until_ready(value)


def available(device: str) -> str:
    try:
        jax.devices(PLATFORMS[device])
    except RuntimeError as error:
        return f"jax sees no device '{device}' ({str(error).splitlines()[0][:120]})"
    return ""


def pin_threads(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


def device_reset() -> None:
    return None


def device_peak() -> tuple[int | None, str]:
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return (peak, "") if peak is not None else (None, "jax reports no memory statistics on this device")


def release() -> None:
    return None


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def seed(value: int) -> None:
    numpy.random.seed(value % 2**32)


def compile_seconds() -> float | None:
    """Seconds this process has spent tracing, lowering and compiling so far."""
    return _compiling.seconds()
