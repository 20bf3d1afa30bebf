"""Real text without a download: the sources of Python's standard library, as bytes."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import numpy as np

OTHERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def standard_library(size: int) -> np.ndarray:
    """The first `size` bytes of the library's own *.py files, uint8, bytes above 127 set to 127.

    Folders in the order of their names, the files of a folder before its subfolders; its tests and the packages that live beside
    it are left out. The text depends on the Python version: what is made of it must carry a digest. ValueError where the library
    holds less.
    """
    root = sysconfig.get_paths()["stdlib"]
    found, total = [], 0
    for folder, below, names in os.walk(root):
        below[:] = sorted(set(below) - OTHERS)
        for name in sorted(name for name in names if name.endswith(".py")):
            if total < size:
                found.append(np.minimum(np.frombuffer(Path(folder, name).read_bytes(), dtype=np.uint8), 127))
                total += len(found[-1])
        if total >= size:
            return np.concatenate(found)[:size]
    raise ValueError(f"the standard library at {root} has {total} bytes of sources, {size} were asked for")


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
