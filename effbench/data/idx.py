"""The IDX format of MNIST and its likes: two zero bytes, a type, a rank, big-endian lengths, then the numbers."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

from ..api.errors import DataError

TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST_BYTES = 1 << 30


def read_idx(path: Path, *, shape: tuple[int, ...] | None = None, dtype: str = "", most_bytes: int = MOST_BYTES) -> Any:
    """The array of an IDX file, plain or gzip, in native byte order.

    DataError unless the header is exact, the numbers fill the file to its last byte, and shape and dtype are the ones asked
    for. Nothing is allocated on the header's word alone: its size is held against `most_bytes` first.
    """
    import numpy as np

    def refuse(what: str) -> DataError:
        return DataError(what, where=str(path), remedy="It is not the IDX file that was expected; fetch it again.")

    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as stream:
                head = stream.read(4)
                if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES:
                    raise refuse(f"IDX header {head.hex() or '(empty)'} is not known")
                rank = head[3]
                if not 1 <= rank <= 8:
                    raise refuse(f"IDX rank {rank} is outside 1..8")
                lengths = stream.read(4 * rank)
                if len(lengths) < 4 * rank:
                    raise refuse("IDX header is cut off")
                found = struct.unpack(f">{rank}I", lengths)
                kind = np.dtype(TYPES[head[2]])
                count = 1
                for length in found:
                    count *= length
                if count * kind.itemsize > most_bytes:
                    raise refuse(f"IDX header promises {count * kind.itemsize} bytes, more than {most_bytes}")
                if shape is not None and found != tuple(shape):
                    raise refuse(f"IDX shape {found}, expected {tuple(shape)}")
                if dtype and kind != np.dtype(dtype):
                    raise refuse(f"IDX type {kind.newbyteorder('=')}, expected {dtype}")
                body = stream.read(count * kind.itemsize)
                if len(body) != count * kind.itemsize:
                    raise refuse(f"IDX header promises {count * kind.itemsize} bytes of numbers, the file holds {len(body)}")
                if stream.read(1):
                    raise refuse(f"IDX file goes on after the {len(body)} bytes that its header promises")
    except (OSError, EOFError, zlib.error) as error:
        raise refuse(f"cannot be read ({error})") from error
    return np.frombuffer(body, dtype=kind).reshape(found).astype(kind.newbyteorder("="))
