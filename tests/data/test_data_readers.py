"""Readers of raw formats: what the file says of itself is held against what is there before anything is believed."""

import gzip
import lzma
import struct

import numpy as np
import pytest

from effbench import DataError
from effbench.data.idx import read_idx
from effbench.data.rda import read_rda


def idx(array, *, kind=8, shape=None, extra=b""):
    lengths = array.shape if shape is None else shape
    return struct.pack(f">HBB{len(lengths)}I", 0, kind, len(lengths), *lengths) + array.tobytes() + extra


CUBE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_of_every_type(tmp_path, pack):
    for kind, dtype in ((0x08, "u1"), (0x09, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")):
        array = (np.arange(24).reshape(2, 3, 4) - 5).astype(dtype)
        (tmp_path / "file").write_bytes(pack(idx(array, kind=kind)))
        found = read_idx(tmp_path / "file", shape=(2, 3, 4))
        assert np.array_equal(found, array) and found.dtype.isnative and found.flags.writeable


LIES = {
    "longer than the file": idx(CUBE, shape=(3, 3, 4)),
    "shorter than the file": idx(CUBE, shape=(1, 3, 4)),
    "a byte too many": idx(CUBE, extra=b"\0"),
    "a byte too few": idx(CUBE)[:-1],
    "petabytes": idx(CUBE, shape=(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)),
    "overflow to the right size": idx(CUBE, shape=(2**31, 2**31, 24, 4)),
    "unknown type": idx(CUBE, kind=0x0A),
    "rank 0": b"\0\0\x08\0",
    "rank 9": b"\0\0\x08\x09" + b"\0\0\0\1" * 9 + b"x",
    "no zero bytes": b"\1\0" + idx(CUBE)[2:],
    "cut in the lengths": idx(CUBE)[:9],
    "empty": b"",
    "another shape": idx(CUBE, shape=(3, 2, 4)),
    "another type": idx(CUBE, kind=9),
}


@pytest.mark.parametrize("case", LIES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_with_a_lying_header(tmp_path, case, pack):
    (tmp_path / "file").write_bytes(pack(LIES[case]))
    with pytest.raises(DataError):
        read_idx(tmp_path / "file", shape=(2, 3, 4), dtype="uint8")


def test_idx_is_not_believed_before_memory_is_asked_for(tmp_path):
    (tmp_path / "file").write_bytes(LIES["petabytes"])
    with pytest.raises(DataError, match=r"promises .* more than"):
        read_idx(tmp_path / "file")


def test_idx_in_a_damaged_gzip(tmp_path):
    whole = gzip.compress(idx(CUBE))
    for data in (whole[:-9], whole[:20], whole[:-6] + b"\0\0" + whole[-4:], whole + b"tail", b"\x1f\x8b"):
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(DataError):
            read_idx(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "absent")


# ---- R tables. A small writer of the format, so that the reader is tested against bytes of known meaning.


def i(value):
    return struct.pack(">i", value)


def text(value):
    return i(0x00040009) + i(len(value)) + value.encode()


def strings(*values):
    return i(16) + i(len(values)) + b"".join(text(value) for value in values)


def pairs(**cells):
    return b"".join(i(0x402) + i(1) + text(name.replace("_", ".")) + value for name, value in cells.items()) + i(254)


def real(*values):
    return i(14) + i(len(values)) + struct.pack(f">{len(values)}d", *values)


def integer(*values, attributes=b""):
    return i(13 | (0x200 if attributes else 0)) + i(len(values)) + struct.pack(f">{len(values)}i", *values) + attributes


def factor(*codes, levels):
    return integer(*codes, attributes=pairs(levels=strings(*levels), **{"class": strings("factor")}))


def frame(**columns):
    attributes = pairs(names=strings(*columns), row_names=integer(-(2**31), -2), **{"class": strings("data.frame")})
    return i(19 | 0x200) + i(len(columns)) + b"".join(columns.values()) + attributes


def file(body, version=2):
    encoding = i(5) + b"UTF-8" if version == 3 else b""
    return b"RDX%d\nX\n" % version + i(version) + i(0x00040101) + i(0x00020300) + encoding + body


GOOD = {"x": real(1.5, float("nan")), "n": integer(3, -4), "kind": factor(2, 1, levels=("a", "b"))}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_an_r_table(tmp_path, version, pack):
    (tmp_path / "t.rda").write_bytes(pack(file(pairs(T=frame(**GOOD)), version)))
    table = read_rda(tmp_path / "t.rda")["T"]
    assert list(table.columns) == ["x", "n", "kind"] and table.levels == {"kind": ("a", "b")}
    assert np.array_equal(table.columns["x"], [1.5, np.nan], equal_nan=True)
    assert table.columns["n"].tolist() == [3, -4] and table.columns["kind"].tolist() == [1, 0]


def test_symbols_by_reference_and_missing_levels(tmp_path):
    second = i(0x402) + i(255 | 1 << 8) + real(1)  # the tag is the first symbol again: a duplicate name
    (tmp_path / "t.rda").write_bytes(file(i(0x402) + i(1) + text("T") + frame(**GOOD) + second + i(254)))
    with pytest.raises(DataError, match="'T'"):
        read_rda(tmp_path / "t.rda")
    (tmp_path / "t.rda").write_bytes(file(pairs(T=frame(kind=factor(-(2**31), 1, levels=("a",))))))
    assert read_rda(tmp_path / "t.rda")["T"].columns["kind"].tolist() == [-1, 0]


def test_r_lengths_are_not_believed_before_memory_is_asked_for(tmp_path):
    (tmp_path / "t.rda").write_bytes(file(pairs(T=i(16) + i(2**30))))
    with pytest.raises(DataError, match="vector of length 1073741824"):
        read_rda(tmp_path / "t.rda")


CLOSURE = i(3) + i(253) + i(254) + i(254)
DEEP = i(19) + i(1)
BAD = {
    "a closure": pairs(T=CLOSURE),
    "a promise": pairs(T=i(5)),
    "an environment": pairs(T=i(4) + i(0) + i(254) * 4),
    "a language object": pairs(T=i(6) + i(1) + text("system") + i(254)),
    "byte code": pairs(T=i(21)),
    "a closure in a column": pairs(T=frame(x=CLOSURE)),
    "an external pointer": pairs(T=i(22)),
    "not a frame": pairs(T=real(1, 2)),
    "a list column": pairs(T=frame(x=i(19) + i(0))),
    "length beyond the file": pairs(T=i(14) + i(2**30)),
    "negative length": pairs(T=i(14) + i(-1)),
    "text beyond the file": pairs(T=i(16) + i(1) + i(9) + i(2**30)),
    "codes beyond the levels": pairs(T=frame(k=factor(3, 1, levels=("a", "b")))),
    "code zero": pairs(T=frame(k=factor(0, 1, levels=("a", "b")))),
    "unequal columns": pairs(T=frame(x=real(1, 2), y=real(1))),
    "missing whole numbers": pairs(T=frame(n=integer(1, -(2**31)))),
    "nested without end": pairs(T=DEEP * 5000),
    "reference to nothing": i(0x402) + i(255 | 7 << 8) + frame(**GOOD) + i(254),
    "no name": i(2) + frame(**GOOD) + i(254),
    "tail": pairs(T=frame(**GOOD)) + b"\0",
    "cut": pairs(T=frame(**GOOD))[:-30],
    "nothing": b"",
    "one vector": real(1),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_a_table_of_numbers_is_refused(tmp_path, case):
    (tmp_path / "t.rda").write_bytes(file(BAD[case]))
    with pytest.raises(DataError, match="not a readable R table"):
        read_rda(tmp_path / "t.rda")


def test_an_r_file_of_another_kind_or_too_large(tmp_path):
    for data in (b"RDX4\nX\n" + i(4), b"RDA2\nA\n", b"RDX2\nX\n" + i(3) + i(0) + i(0), b"\x80\x04pickle", lzma.compress(b"x")[:-5]):
        (tmp_path / "t.rda").write_bytes(data)
        with pytest.raises(DataError):
            read_rda(tmp_path / "t.rda")
    (tmp_path / "t.rda").write_bytes(gzip.compress(bytes(10_000)))
    with pytest.raises(DataError, match="more than 999 bytes"):
        read_rda(tmp_path / "t.rda", most_bytes=999)
