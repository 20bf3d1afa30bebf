"""R's saved tables (.rda, XDR serialisation versions 2 and 3): data frames of numbers and factors, and nothing else.

Source: "R Internals", section 1.8, Serialization Formats. The format can carry code (closures, promises, environments);
those are refused by type, never built.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..api.errors import DataError

SYMBOL, PAIRS, TEXT, LOGICAL, INTEGER, REAL, STRINGS, LIST = 1, 2, 9, 10, 13, 14, 16, 19
NIL, REFERENCE = 254, 255
NA = -(2**31)
MOST_BYTES = 1 << 28
MOST_DEPTH = 32


@dataclass(frozen=True)
class Frame:
    """A data frame. A column is float64, int32 or bool; of a factor it holds int32 codes from 0 (missing: -1) into `levels`."""

    columns: dict[str, Any]
    levels: dict[str, tuple[str, ...]]


@dataclass
class _Vector:
    values: Any  # array of an atomic vector, list of the others
    attributes: dict[str, Any] = field(default_factory=dict)


class _Malformed(Exception):
    pass


def read_rda(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Frame]:
    """The data frames of an .rda file by name. DataError when it holds anything else, or is not well formed."""
    try:
        data = _unpacked(path, most_bytes)
        return {name: _frame(value) for name, value in _Reader(data).top().items()}
    except (_Malformed, OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise DataError(f"not a readable R table ({error})", where=str(path), remedy="Fetch it again.") from error


def _unpacked(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        opened = raw
        for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
            if head.startswith(magic):
                opened = opener(raw)
        data = opened.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise _Malformed(f"more than {most_bytes} bytes when unpacked")
    return data


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at, self.symbols = data, 0, []

    def take(self, count: int) -> bytes:
        if count < 0 or count > len(self.data) - self.at:
            raise _Malformed(f"{count} bytes asked for at {self.at} of {len(self.data)}")
        self.at += count
        return self.data[self.at - count : self.at]

    def int(self) -> int:
        return struct.unpack(">i", self.take(4))[0]

    def length(self, width: int) -> int:
        """A vector's length, believed only if that many elements of `width` bytes can still follow."""
        count = self.int()
        if count < 0 or count * width > len(self.data) - self.at:
            raise _Malformed(f"vector of length {count} at {self.at}")
        return count

    def top(self) -> dict[str, Any]:
        magic = self.take(5)
        if magic not in (b"RDX2\n", b"RDX3\n") or self.take(2) != b"X\n":
            raise _Malformed("no header of an XDR file of version 2 or 3")
        version, _, _ = self.int(), self.int(), self.int()
        if version != int(magic[3:4]):
            raise _Malformed(f"version {version} in a file of version {magic[3:4].decode()}")
        if version == 3:
            self.take(self.length(1))  # native encoding
        found = self.item(0)
        if self.at != len(self.data):
            raise _Malformed(f"{len(self.data) - self.at} bytes after the end")
        if not isinstance(found, dict):
            raise _Malformed("no list of named objects")
        return found

    def item(self, depth: int) -> Any:
        """None, str (symbol or text), dict (pair list) or _Vector."""
        import numpy as np

        if depth > MOST_DEPTH:
            raise _Malformed("nested too deeply")
        flags = self.int()
        kind = flags & 0xFF
        if kind == NIL:
            return None
        if kind == REFERENCE:
            index = (flags >> 8) or self.int()
            if not 1 <= index <= len(self.symbols):
                raise _Malformed(f"reference {index} to nothing")
            return self.symbols[index - 1]
        if kind == SYMBOL:
            name = self.item(depth + 1)
            if not isinstance(name, str):
                raise _Malformed("symbol without a name")
            self.symbols.append(name)
            return name
        if kind == PAIRS:
            return self.pairs(flags, depth)
        if kind == TEXT:
            count = self.int()
            if count == -1:
                return None
            # Bit 2 of the type's own flags: latin-1. All else (ASCII, UTF-8, native) must be UTF-8.
            return self.take(count).decode("latin-1" if flags >> 12 & 4 else "utf-8")
        if kind in (LOGICAL, INTEGER):
            values = np.frombuffer(self.take(4 * self.length(4)), dtype=">i4").astype(np.int32)
        elif kind == REAL:
            values = np.frombuffer(self.take(8 * self.length(8)), dtype=">f8").astype(np.float64)
        elif kind in (STRINGS, LIST):
            values = [self.item(depth + 1) for _ in range(self.length(4))]
        else:
            raise _Malformed(f"object of type {kind}, which is not data")
        if kind == LOGICAL and not np.isin(values, (0, 1, NA)).all():
            raise _Malformed("logical values other than true and false")
        if kind == LOGICAL and not (values == NA).any():
            values = values.astype(bool)
        attributes = self.item(depth + 1) if flags & 0x200 else None
        if attributes is not None and not isinstance(attributes, dict):
            raise _Malformed("attributes are no list")
        return _Vector(values, attributes or {})

    def pairs(self, flags: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while True:
            if flags & 0x200:
                self.item(depth + 1)  # attributes of the cell itself mean nothing here
            tag = self.item(depth + 1) if flags & 0x400 else None
            if not isinstance(tag, str) or tag in found:
                raise _Malformed(f"list cell named {tag!r}")
            found[tag] = self.item(depth + 1)
            flags = self.int()
            if flags & 0xFF == NIL:
                return found
            if flags & 0xFF != PAIRS:
                raise _Malformed("list that ends in something else")


def _texts(value: Any) -> list[str]:
    if not isinstance(value, _Vector) or not isinstance(value.values, list) or not all(isinstance(v, str) for v in value.values):
        raise _Malformed("texts expected")
    return value.values


def _frame(value: Any) -> Frame:
    if not isinstance(value, _Vector) or "data.frame" not in _texts(value.attributes.get("class")):
        raise _Malformed("not a data frame")
    names = _texts(value.attributes.get("names"))
    if len(set(names)) != len(names) or not isinstance(value.values, list) or len(names) != len(value.values):
        raise _Malformed(f"{len(names)} names for the columns")
    columns, levels = {}, {}
    for name, column in zip(names, value.values):
        if not isinstance(column, _Vector) or isinstance(column.values, list):
            raise _Malformed(f"column {name!r} is not numeric")
        values = column.values
        if "levels" in column.attributes:
            levels[name] = tuple(_texts(column.attributes["levels"]))
            if values.dtype.kind != "i" or not (((values >= 1) & (values <= len(levels[name]))) | (values == NA)).all():
                raise _Malformed(f"column {name!r} has codes outside its {len(levels[name])} levels")
            values = values.copy()
            values[values == NA] = 0
            values -= 1
        elif values.dtype.kind == "i" and (values == NA).any():
            raise _Malformed(f"column {name!r} has missing whole numbers")
        columns[name] = values
    if len({len(values) for values in columns.values()}) > 1:
        raise _Malformed("columns of unequal length")
    return Frame(columns, levels)
