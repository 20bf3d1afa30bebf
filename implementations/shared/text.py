"""Real text without a download: the sources of Python's standard library, as bytes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np


def standard_library(size: int) -> np.ndarray:
    """The first `size` bytes of the library's own *.py files in the order of their paths, uint8, bytes above 127 set to 127.

    Files of packages that live beside the library (site-packages) and its tests are left out. The text depends on the Python
    version: what is made of it must carry a digest. ValueError where the library holds less.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found, total = [], 0
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        if total >= size:
            break
        if {"site-packages", "dist-packages", "test", "tests"}.isdisjoint(path.relative_to(root).parts):
            found.append(np.minimum(np.frombuffer(path.read_bytes(), dtype=np.uint8), 127))
            total += len(found[-1])
    if total < size:
        raise ValueError(f"the standard library at {root} has {total} bytes of sources, {size} were asked for")
    return np.concatenate(found)[:size]


def split(text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First 80 % to train, next 10 % to validate, last 10 % to test: neighbours in a file stay together."""
    a, b = int(0.8 * len(text)), int(0.9 * len(text))
    return text[:a], text[a:b], text[b:]


def windows(text: np.ndarray, count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """`count` windows of `length` bytes from random places, int64 [count, length]."""
    if len(text) < length:
        raise ValueError(f"a text of {len(text)} bytes has no window of {length}")
    start = rng.integers(0, len(text) - length + 1, count)
    return text[start[:, None] + np.arange(length)].astype(np.int64)
