"""Files of other benchmarks, for a task's own data: ann-benchmarks HDF5 and TexMex vectors. Numbers only, sizes capped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..api.errors import DataError

REMEDY = "Check that it is the file that the other benchmark publishes."
MOST_BYTES = 1 << 34
ELEMENTS = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}


def read_vectors(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """[rows, d] of a .fvecs (float32), .ivecs (int32) or .bvecs (uint8) file: each row is its length (int32), then its numbers."""
    import numpy as np

    path = Path(path)
    if path.suffix not in ELEMENTS:
        raise DataError(f"the ending '{path.suffix}' is not one of {', '.join(ELEMENTS)}", where=str(path), remedy=REMEDY)
    kind = np.dtype(ELEMENTS[path.suffix])
    try:
        size = path.stat().st_size
        if not 4 < size <= most_bytes:
            raise DataError(f"{size} bytes is empty or more than {most_bytes}", where=str(path), remedy=REMEDY)
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", where=str(path), remedy=REMEDY) from error
    width = int(raw[:4].view("<i4")[0])
    row = 4 + width * kind.itemsize
    if width < 1 or raw.size % row:
        raise DataError(f"{raw.size} bytes are not whole rows of length {width}", where=str(path), remedy=REMEDY)
    rows = raw.reshape(-1, row)
    if not (np.ascontiguousarray(rows[:, :4]).view("<i4") == width).all():
        raise DataError("rows of unequal length", where=str(path), remedy=REMEDY)
    return np.ascontiguousarray(rows[:, 4:]).view(kind).astype(kind.newbyteorder("="), copy=False)


def read_ann_benchmarks(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """train [n, d], test [q, d], neighbors int [q, k], distances [q, k], and distance (text), of a dense ann-benchmarks file."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            "reading HDF5 needs h5py, which is not installed", where=str(path), remedy="Run `pip install h5py`."
        ) from error
    import numpy as np

    def refuse(what: str) -> DataError:
        return DataError(what, where=str(path), remedy=REMEDY)

    found: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            for name, kinds in (("train", "fiu"), ("test", "fiu"), ("neighbors", "iu"), ("distances", "f")):
                # A link may lead to any file of this machine.
                if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
                    raise refuse(f"no table '{name}' of its own")
                table = file[name]
                if table.external or table.is_virtual or table.ndim != 2 or table.dtype.kind not in kinds:
                    raise refuse(f"'{name}' is {table.ndim}-dimensional {table.dtype}, or kept in another file")
                if table.size * table.dtype.itemsize > most_bytes:
                    raise refuse(f"'{name}' is larger than {most_bytes} bytes")
                found[name] = table[...]
            distance = file.attrs.get("distance", "")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise refuse(f"not a readable HDF5 file ({error})") from error
    distance = distance.decode("ascii", "replace") if isinstance(distance, bytes) else distance
    rows, queries = len(found["train"]), len(found["test"])
    fitting = found["train"].shape[1] == found["test"].shape[1] and found["neighbors"].shape == found["distances"].shape
    if not fitting or len(found["neighbors"]) != queries or not isinstance(distance, str):
        raise refuse("tables whose shapes do not go together")
    neighbors = found["neighbors"]
    if neighbors.size and not (int(neighbors.min()) >= 0 and int(neighbors.max()) < rows):
        raise refuse(f"neighbours outside 0..{rows - 1}")
    return {**found, "neighbors": neighbors.astype(np.int64), "distance": distance}
