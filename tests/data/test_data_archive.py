"""Packing carries exact bytes; unpacking takes nothing but files that the catalog knows, byte for byte."""

import io
import json
import tarfile

import pytest

from effbench import DataError
from effbench.data import archive, registry


def build(path, members, *, manifest=True, fmt=tarfile.USTAR_FORMAT):
    """A tar of (TarInfo or name, bytes)."""
    with tarfile.open(path, "w", format=fmt) as tar:
        if manifest:
            members = [("manifest.json", json.dumps({"format": archive.FORMAT, "sets": {}}).encode()), *members]
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.type == tarfile.REGTYPE:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def contents(raw):
    return [(f"toy/{name}", data) for name, data in raw.items()]


def test_round_trip_into_an_empty_cache(cached, tmp_path, monkeypatch):
    size = registry.pack(["toy"], tmp_path / "toy.tar")
    assert size == (tmp_path / "toy.tar").stat().st_size
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "elsewhere"))
    assert registry.state("toy") == "missing"
    assert registry.unpack(tmp_path / "toy.tar") == ["toy"]
    assert registry.state("toy") == "here" and registry.load("toy")["numbers"].shape == (20, 30)
    assert [item.name for item in (tmp_path / "elsewhere").iterdir() if item.name.startswith(".unpack")] == []


def test_equal_content_gives_equal_bytes(cached, tmp_path):
    registry.pack(["toy"], tmp_path / "one.tar")
    (cached / "numbers.gz").touch()
    registry.load("toy")  # leaves its arrays beside the raw files; they are not packed
    registry.pack(["toy", "toy"], tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_only_whole_sets_are_packed(cached, tmp_path):
    (cached / "labels.gz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"labels\.gz has 6 bytes.*fetch toy"):
        registry.pack(["toy"], tmp_path / "toy.tar")
    with pytest.raises(DataError, match=r"other\.bin is missing"):
        registry.pack(["other"], tmp_path / "toy.tar")
    with pytest.raises(DataError, match="nothing to pack"):
        registry.pack([], tmp_path / "toy.tar")
    assert not (tmp_path / "toy.tar").exists() and not list(tmp_path.glob(".pack-*"))


def test_unpacking_mends_a_damaged_cache(cached, tmp_path):
    registry.pack(["toy"], tmp_path / "toy.tar")
    (cached / "labels.gz").write_bytes(b"broken")
    registry.unpack(tmp_path / "toy.tar")
    assert registry.state("toy") == "here"


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


HOSTILE = {
    "absolute path": ("known data set", lambda raw: [("/effbench-escape", b"x")]),
    "absolute path of a known file": ("known data set", lambda raw: [("/toy/numbers.gz", raw["numbers.gz"])]),
    "parent folder": ("known data set", lambda raw: [("toy/../../escape", b"x")]),
    "detour to a known file": ("known data set", lambda raw: [("toy/../toy/numbers.gz", raw["numbers.gz"])]),
    "symbolic link": ("not a plain file", lambda raw: [link("toy/numbers.gz", tarfile.SYMTYPE, "/etc/passwd")]),
    "hard link": ("not a plain file", lambda raw: [*contents(raw)[:1], link("toy/labels.gz", tarfile.LNKTYPE, "toy/numbers.gz")]),
    "folder": ("not a plain file", lambda raw: [link("toy", tarfile.DIRTYPE, "")]),
    "device": ("not a plain file", lambda raw: [link("toy/numbers.gz", tarfile.CHRTYPE, "")]),
    "pipe": ("not a plain file", lambda raw: [link("toy/numbers.gz", tarfile.FIFOTYPE, "")]),
    "unknown set": ("known data set", lambda raw: [*contents(raw), ("nothing/file", b"x")]),
    "unknown file": ("known data set", lambda raw: [*contents(raw), ("toy/extra", b"x")]),
    "too long": ("claims", lambda raw: [("toy/numbers.gz", raw["numbers.gz"] + b"x")]),
    "too short": ("claims", lambda raw: [("toy/numbers.gz", raw["numbers.gz"][:-1])]),
    "wrong bytes": ("has sha256", lambda raw: [("toy/numbers.gz", raw["numbers.gz"][:-1] + b"\xaa"), *contents(raw)[1:]]),
    "twice": ("there twice", lambda raw: [*contents(raw), contents(raw)[0]]),
    "incomplete": ("no toy/labels.gz in it", lambda raw: contents(raw)[:1]),
    "empty": ("no data set in it", lambda raw: []),
    "second manifest": ("known data set", lambda raw: [*contents(raw), ("manifest.json", b"{}")]),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_hostile_archive_leaves_no_trace(toy, raw, tmp_path, case, fmt):
    reason, members = HOSTILE[case]
    file = build(tmp_path / "bad.tar", members(raw), fmt=fmt)
    with pytest.raises(DataError, match=f"{reason}.*Nothing was unpacked"):
        registry.unpack(file)
    assert registry.state("toy") == "missing" and not registry.path("toy").exists()
    left = [item for item in (tmp_path / "cache").rglob("*") if not item.name.endswith(".lock")]
    assert left == [] and not (tmp_path / "escape").exists()


def test_the_hostile_cases_fail_for_what_they_are(toy, raw, tmp_path):
    """The same builder, with nothing hostile, is taken: so each case above is refused for its one flaw."""
    assert registry.unpack(build(tmp_path / "good.tar", contents(raw))) == ["toy"]


def test_the_checksum_is_what_refuses_wrong_bytes(toy, raw, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "fault", lambda file, path: "")
    file = build(tmp_path / "bad.tar", HOSTILE["wrong bytes"][1](raw))
    assert registry.unpack(file) == ["toy"]  # a broken unpack takes it
    assert registry.state("toy") == "damaged"


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"{}", b'{"format": "effbench-data-2"}', b"\xff\xfe", b'{"format": "' + b"x" * 70_000, b"[" * 60_000]
)
def test_a_manifest_of_another_kind_is_refused(toy, raw, tmp_path, manifest):
    file = build(tmp_path / "bad.tar", [("manifest.json", manifest), *contents(raw)], manifest=False)
    with pytest.raises(DataError):
        registry.unpack(file)
    assert not registry.path("toy").exists()


def test_no_manifest(toy, raw, tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        registry.unpack(build(tmp_path / "bad.tar", contents(raw), manifest=False))


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\0" * 10_240, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_tar_is_refused(toy, tmp_path, data):
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(DataError):
        registry.unpack(tmp_path / "bad.tar")


def test_a_torn_archive_is_refused(cached, tmp_path, monkeypatch):
    registry.pack(["toy"], tmp_path / "toy.tar")
    whole = (tmp_path / "toy.tar").read_bytes()
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path / "elsewhere"))
    # The last cut falls inside the last member; after it only zero blocks follow.
    for cut in (100, 600, 1100, 1700, 2100):
        (tmp_path / "torn.tar").write_bytes(whole[:cut])
        with pytest.raises(DataError):
            registry.unpack(tmp_path / "torn.tar")
        assert registry.state("toy") == "missing"


def test_an_archive_longer_than_all_known_data_is_not_opened(toy, tmp_path):
    with (tmp_path / "huge.tar").open("wb") as stream:
        stream.truncate(1 << 30)
    with pytest.raises(DataError, match="longer than"):
        registry.unpack(tmp_path / "huge.tar")
    with pytest.raises(DataError, match="no such file"):
        registry.unpack(tmp_path / "absent.tar")
