"""A data set that is computed here: from checked inputs, checked itself, atomic, resumable, and carried like the others."""

import hashlib
import io
import json
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest

from effbench import DataError
from effbench.data import archive, catalog, commands, digest, making, registry, store

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((40, 8)).astype(np.float16)
LABELS = np.arange(40, dtype=np.int64) % 7
SUMMARY = digest.summary({"vectors": VECTORS})["vectors"]


@pytest.fixture
def calls():
    return []


@pytest.fixture
def made(toy, installed, monkeypatch, calls):
    """The set "made", computed from "toy" (which the system has)."""

    def maker(folders, work, progress):
        calls.append((folders["toy"], work))
        assert (folders["toy"] / "numbers.gz").is_file() and work.is_dir()
        return {"vectors": VECTORS.copy(), "labels": LABELS.copy()}

    dataset = catalog.DataSet(
        name="made", title="Made", licence="CC0", source="this test", of=("toy",), maker=maker, cost="a moment",
        made={
            "vectors": catalog.Made((40, 8), "float16", summary=SUMMARY),
            "labels": catalog.Made((40,), "int64", sha256=making.sha256(LABELS)),
        },
    )  # fmt: skip
    monkeypatch.setattr(catalog, "CATALOG", {**catalog.CATALOG, "made": dataset})
    return dataset


def build(path, members):
    """A tar as `pack` writes it, of anything."""
    manifest = json.dumps({"format": archive.FORMAT, "sets": {}}).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in [("manifest.json", manifest), *members]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def kept(dataset):
    return store.folder_of(dataset, registry.path(dataset.name))


def test_fetch_brings_the_inputs_and_computes_once(made, calls):
    said = []
    assert registry.state("made") == "missing"
    with pytest.raises(DataError, match=r"'made' is missing.*computed from toy: a moment.*effbench data fetch made"):
        registry.load("made")
    registry.fetch("made", lambda text, done, total: said.append(text))
    assert registry.state("made") == registry.state("toy") == "here" and len(calls) == 1
    assert any("computed here, a moment" in text for text in said)
    arrays = registry.load("made")
    assert np.array_equal(arrays["vectors"], VECTORS) and arrays["vectors"].flags.writeable
    assert np.array_equal(registry.load("made", mmap=True)["labels"], LABELS)
    registry.fetch("made")
    assert len(calls) == 1 and not calls[0][1].exists()
    assert [row["state"] for row in registry.verify("made")] == ["ok", "ok"]
    assert commands.listing()[0]["bytes"] == 40 * 8 * 2 + 40 * 8


def test_the_recipe_is_the_inputs(made):
    assert registry.inputs("made") == registry.inputs("toy")
    other = replace(catalog.CATALOG["toy"], version=2)
    before = store.key_of(made)
    catalog.CATALOG["toy"] = other
    assert store.key_of(made) != before


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a | {"vectors": a["vectors"][::-1]}, "vectors.mix"),
        (lambda a: a | {"vectors": a["vectors"] * np.float16(1.01)}, "vectors.std"),
        (lambda a: a | {"vectors": a["vectors"].astype(np.float32)}, "vectors is float32"),
        (lambda a: a | {"vectors": a["vectors"][:39]}, r"vectors is float16 \[39, 8\]"),
        (lambda a: a | {"vectors": np.where(a["vectors"] > 2, np.float16("nan"), a["vectors"])}, "vectors.not_finite"),
        (lambda a: a | {"labels": a["labels"][::-1].copy()}, "labels holds other numbers"),
        (lambda a: {"vectors": a["vectors"]}, "arrays vectors instead of"),
    ],
)
def test_what_is_computed_wrongly_is_not_kept(made, change, message):
    whole = made.maker
    catalog.CATALOG["made"] = replace(made, maker=lambda *given: change(whole(*given)))
    with pytest.raises(DataError, match=message):
        registry.fetch("made")
    assert registry.state("made") == "missing"


def test_rounding_of_another_machine_is_no_fault(made):
    moved = VECTORS.copy()
    moved[::9, ::3] = np.nextafter(moved[::9, ::3], np.float16(9))
    assert making.faults(made, {"vectors": moved, "labels": LABELS}) == []


def test_damage_is_seen_and_mended(made, calls):
    registry.fetch("made")
    file = kept(made) / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert registry.state("made") == "damaged"
    assert [row["state"] for row in registry.verify("made")] == ["damaged", "ok"]
    with pytest.raises(DataError, match="is damaged"):
        registry.load("made")
    with pytest.raises(DataError, match=r"vectors\.npy is not what was written here"):
        registry.pack(["made"], registry.path("made").parent / "x.tar")
    registry.fetch("made")
    assert registry.state("made") == "here" and len(calls) == 2


def test_a_failure_leaves_nothing_but_its_parts(made):
    def broken(folders, work, progress):
        (work / "part-0.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    catalog.CATALOG["made"] = replace(made, maker=broken)
    with pytest.raises(KeyboardInterrupt):
        registry.fetch("made")
    assert registry.state("made") == "missing"
    assert [item.name.split("-")[0] for item in registry.path("made").iterdir()] == ["parts"]
    catalog.CATALOG["made"] = made
    registry.fetch("made")
    assert not list(registry.path("made").glob("parts-*"))


def test_two_at_once_compute_it_once(made, calls):
    threads = [threading.Thread(target=registry.fetch, args=("made",)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(calls) == 1 and registry.state("made") == "here"


def test_packed_arrays_need_no_inputs(made, tmp_path, monkeypatch, calls):
    registry.fetch("made")
    registry.pack(["made"], tmp_path / "one.tar")
    registry.pack(["made"], tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "elsewhere"))
    assert registry.unpack(tmp_path / "one.tar") == ["made"]
    assert registry.state("made") == "here" and registry.state("toy") == "missing" and len(calls) == 1
    assert np.array_equal(registry.load("made")["vectors"], VECTORS)
    assert commands.pack([], tmp_path / "all.tar")["names"] == ["made"]


@pytest.mark.parametrize(
    "name, array",
    [
        ("vectors", VECTORS[::-1]), ("vectors", VECTORS[:39]), ("vectors", VECTORS.astype(np.float64)), ("labels", LABELS[::-1]),
        ("labels", LABELS.astype(np.int32)), ("vectors", np.array([{}] * 40)), ("vectors", None),
    ],
)  # fmt: skip
def test_an_archive_with_other_arrays_is_refused(made, tmp_path, monkeypatch, name, array):
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "elsewhere"))
    members = []
    for key, value in {"labels": LABELS, "vectors": VECTORS, name: array}.items():
        if value is not None:
            np.save(tmp_path / "x.npy", value, allow_pickle=True)
            members.append((f"made/{key}.npy", (tmp_path / "x.npy").read_bytes()))
    with pytest.raises(DataError, match="Nothing was unpacked"):
        archive.unpack(build(tmp_path / "bad.tar", members))
    assert registry.state("made") == "missing"


def test_an_unpacked_file_without_a_header_is_refused(made, tmp_path):
    for data in (b"", b"\x93NUMPY", b"\x80\x04pickle.", VECTORS.tobytes()):
        with pytest.raises(DataError, match="Nothing was unpacked"):
            archive.unpack(build(tmp_path / "bad.tar", [("made/labels.npy", data), ("made/vectors.npy", data)]))


def test_the_sha256_does_not_depend_on_the_byte_order():
    assert (
        making.sha256(LABELS.astype(">i8")) == making.sha256(LABELS) == hashlib.sha256(LABELS.astype("<i8").tobytes()).hexdigest()
    )
