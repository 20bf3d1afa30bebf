"""numpy on the CPU: nothing is asynchronous, nothing needs moving."""

from __future__ import annotations

import numpy


def put(array, device: str):
    return array


def tree_map(function, value):
    """Apply to every leaf of tuples, lists and dicts."""
    if isinstance(value, dict):
        return {key: tree_map(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(tree_map(function, item) for item in value)
    return function(value)


def to_numpy(value):
    return tree_map(numpy.asarray, value)


def synchronise(value=None) -> None:
    return None


def available(device: str) -> str:
    """ "" where the device is there, else a reason."""
    return "" if device == "cpu" else f"numpy has no device '{device}'"


def pin_threads(threads: int) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


def device_reset() -> None:
    return None


def device_peak() -> tuple[int | None, str]:
    """Peak bytes allocated on the device since `device_reset`, or None with a reason."""
    return None, "no device memory on the CPU"


def release() -> None:
    return None


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError)


def seed(value: int) -> None:
    numpy.random.seed(value % 2**32)


def compile_seconds() -> float | None:
    """Seconds this process has spent compiling so far; None where the framework does not tell."""
    return None
