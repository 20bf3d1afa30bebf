"""Arrays that are computed on this machine: made once from other data sets, held against the catalog, kept like the rest.

Floats differ in the last bits between machines, so no sha256 of theirs can be pinned: what is pinned is the sha256 of everything
that they are computed from, and a summary of the result within a tolerance. On this machine the kept files have a sha256 each.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api.errors import DataError
from . import store
from .cache import Progress, lock
from .catalog import DataSet
from .digest import differences, summary

TOLERANCE = 1e-3
BLOCK = 1 << 14


def make(dataset: DataSet, folder: Path, inputs: dict[str, Path], progress: Progress | None) -> None:
    """Compute, check and keep the arrays. Finished parts stay in `folder` until then: an interrupted run goes on from there."""
    with lock(dataset.name, wait=7200, progress=progress):
        if store.whole(dataset, folder):
            return  # another process was faster
        work = folder / f"parts-{store.key_of(dataset)}"
        work.mkdir(parents=True, exist_ok=True)
        if progress:
            progress(f"{dataset.name}: computed here, {dataset.cost}", 0, 0)
        arrays = dataset.maker(inputs, work, progress)
        wrong = faults(dataset, arrays)
        if wrong:
            raise DataError(
                f"'{dataset.name}' as computed here is not what it must be: {'; '.join(wrong[:3])}",
                where=str(folder),
                remedy="Report this with the versions of numpy and torch; `effbench data unpack` can bring the set from elsewhere.",
            )
        store.put(dataset, folder, arrays)
        shutil.rmtree(work, ignore_errors=True)


def faults(dataset: DataSet, arrays: Mapping[str, Any]) -> list[str]:
    """What the arrays differ in from the catalog; empty where they are right."""
    import numpy as np

    if set(arrays) != set(dataset.made):
        return [f"arrays {', '.join(sorted(arrays))} instead of {', '.join(sorted(dataset.made))}"]
    found = []
    for name, told in dataset.made.items():
        array = np.asarray(arrays[name])
        if array.shape != told.shape or array.dtype != np.dtype(told.dtype):
            found.append(f"{name} is {array.dtype} {list(array.shape)}, not {told.dtype} {list(told.shape)}")
        elif told.sha256:
            if sha256(array) != told.sha256:
                found.append(f"{name} holds other numbers")
        else:
            found += differences({name: dict(told.summary)}, summary({name: array}), TOLERANCE)
    return found


def sha256(array: Any) -> str:
    """Of the bytes in little-endian order, whatever the machine's."""
    import numpy as np

    array = np.ascontiguousarray(array)
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
