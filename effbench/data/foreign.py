"""Files of other benchmarks and of one's own, for a task's data: ann-benchmarks HDF5, TexMex and big-ann vectors, NumPy.

Numbers only, sizes capped. What a file's header says is held against the file before any memory is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api.errors import DataError
from ..plan import suite as suites
from .cache import sha256_of

REMEDY = "Check that it is the file that the other benchmark publishes."
MOST_BYTES = 1 << 34
ELEMENTS = {".fvecs": "<f4", ".ivecs": "<i4", ".bvecs": "u1"}  # TexMex: each row is its length (int32), then its numbers
PLAIN = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}  # big-ann: uint32 rows, uint32 length, then all numbers
HDF5 = (".hdf5", ".h5")
ENDINGS = (*ELEMENTS, *PLAIN, ".npy", *HDF5)
BLOCK = 1 << 22  # numbers looked at together
DISTANCES = {"angular": "cosine", "cosine": "cosine", "euclidean": "l2", "ip": "ip"}


def read_set(path: Path, queries: Path | None = None, *, rows: int = 0) -> dict[str, Any]:
    """base [n, d], queries [q, d] or None, metric ("l2", "ip", "cosine", or "" where the file does not say).

    `rows` above 0 keeps the first ones only. DataError for what is not there, not such a file, empty, or not finite.
    """
    path = Path(path)
    if path.suffix in HDF5:
        if queries is not None:
            raise _refuse(path, "an HDF5 file brings its own queries", "Leave the queries' file out.")
        found = read_ann_benchmarks(path)
        if found["distance"] not in DISTANCES:
            raise _refuse(path, f"its distance '{found['distance'][:40]}' is not one of {', '.join(DISTANCES)}")
        base, asked, metric = found["train"], found["test"], DISTANCES[found["distance"]]
    else:
        base, metric = read_vectors(path, rows=rows), ""
        asked = read_vectors(Path(queries)) if queries is not None else None
    base = base[:rows] if rows else base
    if asked is not None and asked.shape[1] != base.shape[1]:
        raise _refuse(path, f"vectors of {base.shape[1]} dimensions, and queries of {asked.shape[1]}")
    for what, array in (("row", base), ("query", asked)):
        bad = -1 if array is None else _not_finite(array)
        if bad >= 0:
            raise _refuse(path, f"{what} {bad} holds NaN or infinity", "Leave such rows out.")
    return {"base": base, "queries": asked, "metric": metric}


def inputs(args: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of the files that data arguments name: part of the recipe, since a file may change."""

    found = {}
    for name, value in suites.files(args).items():
        try:
            found[name] = sha256_of(Path(value))
        except OSError:  # whoever reads it says so
            found[name] = "missing"
    return found


def read_vectors(path: Path, *, rows: int = 0, most_bytes: int = MOST_BYTES) -> Any:
    """[n, d] of a file with one of ENDINGS but HDF5's, in its own type; the first `rows` where that is above 0."""
    path = Path(path)
    if path.suffix not in (*ELEMENTS, *PLAIN, ".npy"):
        raise _refuse(path, f"the ending '{path.suffix}' is not one of {', '.join(ENDINGS)}", "Name the file as its format wants.")
    try:
        size = path.stat().st_size
        if not path.is_file() or not 4 < size <= most_bytes:
            raise _refuse(path, f"{size} bytes is empty or more than {most_bytes}")
        if path.suffix == ".npy":
            return _npy(path, rows)
        return _plain(path, size, rows) if path.suffix in PLAIN else _texmex(path, rows)
    except OSError as error:
        raise _refuse(path, f"cannot be read ({error.strerror or error})") from error


def _npy(path: Path, rows: int) -> Any:
    import numpy as np

    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError, OverflowError, SyntaxError) as error:
        raise _refuse(path, f"not an array of numbers ({error})", "Write it with numpy.save.") from error
    if not isinstance(table, np.ndarray) or table.ndim != 2 or table.dtype.kind not in "fiu" or not table.size:
        shown = f"{table.dtype} {list(table.shape)}" if isinstance(table, np.ndarray) else "an archive"
        raise _refuse(path, f"{shown} is no table of numbers [n, d]", "Write it with numpy.save.")
    # A copy in the machine's own byte order and row order; the map would change with the file.
    return np.array(table[: rows or None], dtype=table.dtype.newbyteorder("="), order="C")


def _plain(path: Path, size: int, rows: int) -> Any:
    import numpy as np

    kind = np.dtype(PLAIN[path.suffix])
    if size < 8:
        raise _refuse(path, f"{size} bytes hold no header")
    count, width = (int(value) for value in np.fromfile(path, "<u4", 2))
    told = 8 + count * width * kind.itemsize
    # Headers of signed numbers are common: a negative count reads as one beyond 2^31.
    if not (0 < count < 1 << 31 and 0 < width < 1 << 31) or told != size:
        raise _refuse(path, f"its header says {count} rows of {width} numbers ({told} bytes), but it has {size} bytes")
    count = min(count, rows) if rows else count
    found = np.fromfile(path, kind, count * width, offset=8)
    if found.size != count * width:
        raise _refuse(path, "it became shorter while it was read")
    return found.reshape(count, width).astype(kind.newbyteorder("="), copy=False)


def _texmex(path: Path, rows: int) -> Any:
    import numpy as np

    kind = np.dtype(ELEMENTS[path.suffix])
    width = int(np.fromfile(path, "<i4", 1)[0])
    row = 4 + width * kind.itemsize
    size = path.stat().st_size
    if width < 1 or size % row:
        raise _refuse(path, f"{size} bytes are not whole rows of length {width}")
    table = np.fromfile(path, np.uint8, min(size, rows * row) if rows else size).reshape(-1, row)
    if not (np.ascontiguousarray(table[:, :4]).view("<i4") == width).all():
        raise _refuse(path, "rows of unequal length")
    return np.ascontiguousarray(table[:, 4:]).view(kind).astype(kind.newbyteorder("="), copy=False)


def _not_finite(array: Any) -> int:
    """The first row with NaN or infinity, or -1."""
    import numpy as np

    if array.dtype.kind != "f":
        return -1
    step = max(1, BLOCK // array.shape[1])
    for start in range(0, len(array), step):
        good = np.isfinite(array[start : start + step]).all(1)
        if not good.all():
            return start + int(np.argmin(good))
    return -1


def _refuse(path: Path, what: str, remedy: str = REMEDY) -> DataError:
    return DataError(what, where=str(path), remedy=remedy)


def read_ann_benchmarks(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """train [n, d], test [q, d], neighbors int [q, k], distances [q, k], and distance (text), of a dense ann-benchmarks file."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            "reading HDF5 needs h5py, which is not installed", where=str(path), remedy="Run `pip install 'effbench[h5]'`."
        ) from error
    import numpy as np

    def refuse(what: str) -> DataError:
        return _refuse(path, what)

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
                # Chunks that were never written read as zeros: a small file can claim any shape.
                size = table.size * table.dtype.itemsize
                if not size or size > most_bytes or table.id.get_storage_size() == 0:
                    raise refuse(f"'{name}' of shape {table.shape} is empty, not written, or larger than {most_bytes} bytes")
                if not (table.compression or table.chunks) and table.id.get_storage_size() != size:
                    raise refuse(f"'{name}' claims {size} bytes and holds {table.id.get_storage_size()}")
                if table.chunks and table.id.get_num_chunks() < _chunks(table.shape, table.chunks):
                    raise refuse(f"'{name}' of shape {table.shape} was not written in full")
                found[name] = table[...]
            distance = file.attrs.get("distance", "")
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
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


def _chunks(shape: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    total = 1
    for length, step in zip(shape, chunk):
        total *= -(-length // step)
    return total
