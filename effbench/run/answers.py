"""Whether two answers of a method are the same, and whether an input still is what it was."""

from __future__ import annotations

from typing import Any


def leaves(value: Any):
    if isinstance(value, dict):
        for key in sorted(value):
            yield from leaves(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def fingerprint(value: Any) -> str:
    """Digest of a tree of numpy arrays: tells whether a method wrote into its input."""
    import hashlib

    import numpy as np

    total = hashlib.sha256()
    for leaf in leaves(value):
        array = np.ascontiguousarray(leaf)
        total.update(str((array.shape, array.dtype.str)).encode())
        total.update(array.tobytes() if array.dtype != object else repr(leaf).encode())
    return total.hexdigest()


def close(a: Any, b: Any) -> bool:
    """Whether two answers agree up to rounding: integers in at least 99 % of places (ties), floats within 1e-2 of their norm."""
    import numpy as np

    left, right = list(leaves(a)), list(leaves(b))
    if len(left) != len(right):
        return False
    for x, y in zip(left, right):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape or x.dtype.kind != y.dtype.kind:
            return False
        if x.dtype.kind in "iub":
            if x.size and (x == y).mean() < 0.99:
                return False
        elif x.dtype.kind == "f":
            x, y = x.astype(np.float64), y.astype(np.float64)
            if np.linalg.norm((x - y).ravel()) > 1e-2 * (np.linalg.norm(y.ravel()) + 1e-30):
                return False
        elif not np.array_equal(x, y):
            return False
    return True
