"""Frameworks behind one small interface, loaded on demand.

A backend knows how to put numpy arrays on a device, bring results back, wait for the device, and free memory.
`native` is a compiled library that works on numpy arrays.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ..api.errors import DeviceError

DEVICES = ("cpu", "cuda", "tpu")
SUPPORTED = {"numpy": ("cpu",), "native": ("cpu",), "torch": ("cpu", "cuda"), "jax": ("cpu", "cuda", "tpu")}
PRELOAD = {"numpy": "numpy", "native": "numpy", "torch": "torch", "jax": "jax"}  # imported once, before workers fork


def get(backend: str) -> ModuleType:
    """The backend's module: put, to_numpy, synchronise, available, device_peak, device_reset, pin_threads, compile_seconds."""
    name = "numpy" if backend == "native" else backend
    try:
        return importlib.import_module(f"{__name__}.{name}_backend")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "jax"):
            raise
        raise DeviceError(
            f"{error.name} is not installed", where=f"backend '{backend}'", remedy=f"pip install 'effbench[{error.name}]'"
        ) from None
