"""Vectors of other benchmarks: what a header says is held against the file, and nothing but finite numbers comes in."""

import struct

import numpy as np
import pytest

from effbench import DataError
from effbench.data import foreign
from effbench.data.foreign import read_ann_benchmarks, read_set, read_vectors

TABLE = np.random.default_rng(0).standard_normal((9, 5)).astype("<f4")


def texmex(array):
    width = np.full((len(array), 1), array.shape[1], dtype="<i4").view(np.uint8)
    return np.hstack([width, array.view(np.uint8).reshape(len(array), -1)]).tobytes()


def plain(array, rows=None, width=None):
    return struct.pack("<II", len(array) if rows is None else rows, array.shape[1] if width is None else width) + array.tobytes()


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "ending, dtype, pack",
    [
        (".fvecs", "<f4", texmex), (".ivecs", "<i4", texmex), (".bvecs", "u1", texmex),
        (".fbin", "<f4", plain), (".ibin", "<i4", plain), (".u8bin", "u1", plain), (".i8bin", "i1", plain),
    ],
)  # fmt: skip
def test_every_format_gives_back_what_was_written(tmp_path, ending, dtype, pack):
    array = (np.arange(15).reshape(3, 5) * 7).astype(dtype)
    path = write(tmp_path / f"v{ending}", pack(array))
    found = read_vectors(path)
    assert np.array_equal(found, array) and found.dtype == np.dtype(dtype).newbyteorder("=") and found.flags.c_contiguous
    assert np.array_equal(read_vectors(path, rows=2), array[:2])
    assert np.array_equal(read_vectors(path, rows=99), array)


@pytest.mark.parametrize("array", [TABLE, TABLE.astype(">f8"), np.asfortranarray(TABLE), (TABLE * 9).astype(np.int16)])
def test_numpy_tables_of_any_order(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    found = read_vectors(tmp_path / "v.npy")
    assert np.array_equal(found, array) and found.dtype.isnative and found.flags.c_contiguous and found.flags.writeable


LIES = {
    "cut.fvecs": texmex(TABLE)[:-1],
    "empty.fvecs": b"",
    "negative.fvecs": struct.pack("<i", -1) + texmex(TABLE)[4:],
    "zero.fvecs": struct.pack("<i", 0) + texmex(TABLE)[4:],
    "unequal.fvecs": texmex(TABLE)[:24] + struct.pack("<i", 1) + texmex(TABLE)[28:],
    "tail.fvecs": texmex(TABLE) + texmex(TABLE)[:4],
    "beyond.fbin": plain(TABLE, rows=1000),
    "huge.fbin": plain(TABLE, rows=2**32 - 1, width=2**32 - 1),
    "negative.fbin": struct.pack("<ii", -9, 5) + TABLE.tobytes(),
    "both-negative.fbin": struct.pack("<ii", -9, -5) + TABLE.tobytes(),
    "no-rows.fbin": struct.pack("<II", 0, 5),
    "no-width.fbin": struct.pack("<II", 9, 0),
    "shorter.fbin": plain(TABLE, rows=8),
    "cut.fbin": plain(TABLE)[:-3],
    "header.fbin": b"\1\0\0\0\5\0",
    "bytes-as-floats.fbin": plain(TABLE.astype("u1")),
    "wrong.u8bin": plain(TABLE.astype("u1"), rows=10),
    "text.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<U3', 'fortran_order': False, 'shape': (2,), }" + b" " * 60 + b"\n",
    "lies.npy": b"",
    "pickle.npy": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "noise.npy": bytes(range(64)),
    "unknown.csv": b"1,2,3,4\n",
    "none": b"12345678",
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_lie_are_refused_with_their_name(tmp_path, name):
    data = LIES[name]
    if name == "lies.npy":
        np.save(tmp_path / name, TABLE)
        data = (tmp_path / name).read_bytes().replace(b"(9, 5)", b"(9,50)")
    with pytest.raises(DataError, match=name):
        read_vectors(write(tmp_path / name, data))


def test_a_size_is_refused_before_memory_is_asked_for(tmp_path, monkeypatch):
    path = write(tmp_path / "huge.fbin", plain(TABLE, rows=2**31 - 1, width=2**20))
    monkeypatch.setattr(np, "fromfile", lambda *args, offset=0, **kw: _header_only(*args, offset=offset))
    with pytest.raises(DataError, match="its header says 2147483647 rows of 1048576 numbers"):
        read_vectors(path)


def _header_only(path, kind, count, offset=0):
    assert count <= 2, "rows were read although the header is wrong"
    return np.frombuffer(open(path, "rb").read(4 * count), kind)


@pytest.mark.parametrize(
    "array", [np.ones(4), np.ones((2, 2, 2)), np.ones((0, 4)), np.ones((4, 0)), np.array([["a"]]), np.ones((2, 2)) * 1j]
)
def test_numpy_files_that_are_no_table(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(DataError, match="no table of numbers"):
        read_vectors(tmp_path / "v.npy")


def test_objects_and_archives_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[{}]]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", TABLE)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    for name in ("o.npy", "a.npy"):
        with pytest.raises(DataError, match=name):
            read_vectors(tmp_path / name)


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "folder.fbin").mkdir()
    for name in ("absent.fbin", "absent.npy", "absent.fvecs", "folder.fbin"):
        with pytest.raises(DataError, match=name):
            read_vectors(tmp_path / name)
    pytest.importorskip("h5py")
    with pytest.raises(DataError, match="not a readable HDF5"):
        read_set(tmp_path / "absent.hdf5")


# ---- sets


def test_base_and_queries_of_two_files(tmp_path):
    base, queries = write(tmp_path / "base.fbin", plain(TABLE)), write(tmp_path / "q.fvecs", texmex(TABLE[:2]))
    found = read_set(base, queries, rows=7)
    assert np.array_equal(found["base"], TABLE[:7]) and np.array_equal(found["queries"], TABLE[:2]) and found["metric"] == ""
    assert read_set(base)["queries"] is None
    narrow = write(tmp_path / "narrow.fvecs", texmex(np.ascontiguousarray(TABLE[:2, :3])))
    with pytest.raises(DataError, match="5 dimensions, and queries of 3"):
        read_set(base, narrow)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_named(tmp_path, value, monkeypatch):
    monkeypatch.setattr(foreign, "BLOCK", 10)  # two rows at once
    spoilt = TABLE.copy()
    spoilt[6, 3] = value
    path = write(tmp_path / "base.fbin", plain(spoilt))
    with pytest.raises(DataError, match="row 6 holds NaN or infinity"):
        read_set(path)
    with pytest.raises(DataError, match="query 6 holds"):
        read_set(write(tmp_path / "good.fbin", plain(TABLE)), path)
    assert len(read_set(path, rows=6)["base"]) == 6


def test_a_changed_file_is_another_recipe(tmp_path):
    path = write(tmp_path / "base.fbin", plain(TABLE))
    args = {"path": str(path), "queries_path": "", "rows": 3, "metric": "path"}
    before = foreign.inputs(args)
    assert set(before) == {"path"}
    write(path, plain(TABLE[::-1]))
    assert foreign.inputs(args) != before
    path.unlink()
    assert foreign.inputs(args) == {"path": "missing"}


# ---- ann-benchmarks

GOOD = {
    "train": TABLE,
    "test": TABLE[:2],
    "neighbors": np.array([[0, 8], [1, 2]], dtype="i4"),
    "distances": np.zeros((2, 2), dtype="f4"),
}


def hdf5(path, distance="angular", **changed):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as out:
        out.attrs["distance"] = distance
        for name, value in {**GOOD, **changed}.items():
            if callable(value):
                value(out, name)
            elif value is not None:
                out[name] = value
    return path


def test_ann_benchmarks(tmp_path):
    found = read_ann_benchmarks(hdf5(tmp_path / "f.hdf5"))
    assert found["distance"] == "angular" and all(np.array_equal(found[name], GOOD[name]) for name in GOOD)
    whole = read_set(tmp_path / "f.hdf5", rows=4)
    assert whole["metric"] == "cosine" and len(whole["base"]) == 4 and len(whole["queries"]) == 2
    packed = hdf5(
        tmp_path / "p.hdf5", train=lambda out, name: out.create_dataset(name, data=TABLE, chunks=(2, 5), compression="gzip")
    )
    assert np.array_equal(read_ann_benchmarks(packed)["train"], TABLE)
    assert read_set(hdf5(tmp_path / "e.hdf5", distance="euclidean"))["metric"] == "l2"


HOSTILE = {
    "neighbours beyond the base": {"neighbors": GOOD["neighbors"] + 9},
    "negative neighbours": {"neighbors": GOOD["neighbors"] - 1},
    "other dimensions": {"test": np.ones((2, 5 + 1))},
    "fewer distances": {"distances": np.zeros((2, 1))},
    "fewer answers": {"neighbors": GOOD["neighbors"][:1], "distances": GOOD["distances"][:1]},
    "no base": {"train": None},
    "no queries": {"test": None},
    "no neighbours": {"neighbors": None},
    "a row instead of a table": {"train": np.ones(4)},
    "text": {"train": ["text"]},
    "empty": {"train": np.ones((0, 5))},
    "a group": {"train": lambda out, name: out.create_group(name)},
    "never written": {"train": lambda out, name: out.create_dataset(name, shape=(10**6, 5), dtype="f4")},
    "chunks never written": {"train": lambda out, name: out.create_dataset(name, shape=(10**6, 5), dtype="f4", chunks=(10, 5))},
    "larger than any memory": {"train": lambda out, name: out.create_dataset(name, shape=(2**40, 5), dtype="f4", chunks=(10, 5))},
    "partly written": {"train": lambda out, name: out.create_dataset(name, shape=(99, 5), dtype="f4", chunks=(9, 5)).__setitem__(slice(9), TABLE)},
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hdf5_with_missing_fields_or_lying_shapes(tmp_path, case):
    with pytest.raises(DataError, match=r"f\.hdf5"):
        read_ann_benchmarks(hdf5(tmp_path / "f.hdf5", **HOSTILE[case]))


def test_hdf5_that_points_elsewhere_or_is_none(tmp_path):
    h5py = pytest.importorskip("h5py")
    for link in (h5py.ExternalLink("/etc/passwd", "/train"), h5py.SoftLink("/test")):
        with pytest.raises(DataError, match="of its own"):
            read_ann_benchmarks(hdf5(tmp_path / "f.hdf5", train=link))
    with pytest.raises(DataError, match="not a readable HDF5"):
        read_ann_benchmarks(write(tmp_path / "g.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(64)))
    with pytest.raises(DataError, match="jaccard"):
        read_set(hdf5(tmp_path / "f.hdf5", distance="jaccard"))
    with pytest.raises(DataError, match="brings its own queries"):
        read_set(tmp_path / "f.hdf5", tmp_path / "q.fbin")
    spoilt = np.where(TABLE > 1, np.nan, TABLE)
    with pytest.raises(DataError, match="NaN or infinity"):
        read_set(hdf5(tmp_path / "n.hdf5", train=spoilt))
