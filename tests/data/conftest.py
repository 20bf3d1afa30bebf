"""A small catalog of our own and a cache in a temporary folder; no test here needs a network."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from effbench.data import catalog, sources
from effbench.data.idx import read_idx


def idx_bytes(array, *, shape=None) -> bytes:
    lengths = array.shape if shape is None else shape
    return struct.pack(f">HBB{len(lengths)}I", 0, 8, len(lengths), *lengths) + array.tobytes()


def toy_loader(folder):
    return {"numbers": read_idx(folder / "numbers.gz"), "labels": read_idx(folder / "labels.gz").astype(np.int64)}


@pytest.fixture
def raw():
    """The right bytes of the toy set's files."""
    numbers = np.arange(600, dtype=np.uint8).reshape(20, 30)
    return {
        "numbers.gz": gzip.compress(idx_bytes(numbers), mtime=0),
        "labels.gz": gzip.compress(idx_bytes(numbers[:, 0].copy()), mtime=0),
    }


@pytest.fixture
def toy(monkeypatch, tmp_path, raw):
    """The data set "toy", with its cache under tmp_path/cache, and no source but tmp_path/system."""
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.delenv("EFFBENCH_MIRROR", raising=False)
    monkeypatch.setattr(sources, "ROOT", tmp_path / "system")
    files = tuple(catalog.File(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in raw.items())
    small = catalog.DataSet(
        name="toy", title="Toy", licence="CC0", source="this test", loader=toy_loader, files=files, folder="usr/share/toy"
    )
    other = catalog.DataSet(
        name="other",
        title="Other",
        licence="CC0",
        source="this test",
        loader=toy_loader,
        files=(catalog.File("other.bin", hashlib.sha256(b"other").hexdigest(), 5),),
    )
    monkeypatch.setattr(catalog, "CATALOG", {"toy": small, "other": other})
    return small


@pytest.fixture
def cached(toy, tmp_path, raw):
    """The folder of "toy", filled by hand."""
    folder = tmp_path / "cache" / "toy"
    folder.mkdir(parents=True)
    for name, data in raw.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def installed(toy, tmp_path, raw):
    """The folder of "toy" as a system package would install it."""
    folder = tmp_path / "system" / "usr" / "share" / "toy"
    folder.mkdir(parents=True)
    for name, data in raw.items():
        (folder / name).write_bytes(data)
    return folder
