"""Carry data sets to a machine without a network: one plain tar of raw files, the same bytes for the same content.

    manifest.json           {"format": "effbench-data-1", "sets": {name: [{"name", "bytes", "sha256"}]}}
    NAME/FILE               the raw files, sorted; of a set that is computed, its arrays

Unpacking trusts nothing in the archive: a member must be a plain file with exactly a name that the catalog knows, a size that
the catalog knows, and a sha256 that the catalog knows; computed floats must have the shape, type and summary that it knows. The
manifest is for people.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..api.errors import DataError
from . import making, registry, store
from .cache import cache_folder, fault, lock, place, sha256_of
from .catalog import File, size_text

FORMAT = "effbench-data-1"
MANIFEST = "manifest.json"
MOST_MANIFEST = 1 << 16
MOST_HEADER = 1 << 12  # of an .npy file


def pack(wanted: Sequence[str], target: Path) -> int:
    """Write the data sets to `target` (replaced in one step); its size in bytes. DataError unless each is here and whole."""
    target = Path(target)
    chosen = [registry.get(name) for name in sorted(set(wanted))]
    chosen = [dataset for dataset in chosen if dataset.files or dataset.made]  # the others come with their Python package
    if not chosen:
        raise DataError("nothing to pack", where=str(target), remedy="Name a data set that has files, as `fashion-mnist`.")
    members: list[tuple[str, Path]] = []
    sets: dict[str, list[dict]] = {}
    for dataset in chosen:
        folder = registry.path(dataset.name)
        home = store.folder_of(dataset, folder) if dataset.made else folder
        for row in registry.verify(dataset.name):
            source = home / row["file"]
            if row["wrong"]:
                remedy = f"Run `effbench data fetch {dataset.name}`."
                raise DataError(f"{row['file']} {row['wrong']}", where=str(source), remedy=remedy)
            told = {"name": row["file"], "bytes": source.stat().st_size, "sha256": sha256_of(source)}
            sets.setdefault(dataset.name, []).append(told)
            members.append((f"{dataset.name}/{row['file']}", source))
    text = json.dumps({"format": FORMAT, "sets": sets}, indent=1, sort_keys=True).encode() + b"\n"
    try:
        with tempfile.NamedTemporaryFile(prefix=".pack-", dir=target.absolute().parent, delete=False) as scratch:
            try:
                with tarfile.open(fileobj=scratch, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    tar.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
                    for name, source in sorted(members):
                        with source.open("rb") as stream:
                            tar.addfile(_member(name, source.stat().st_size), stream)
                scratch.flush()
                os.fsync(scratch.fileno())
                os.chmod(scratch.name, 0o644)
                os.replace(scratch.name, target)
            except BaseException:
                Path(scratch.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror or error})", where=str(target), remedy="Choose another file."
        ) from error
    return target.stat().st_size


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Only name and size; owner 0, time 0, mode 644, so that equal content gives an equal archive."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def unpack(file: Path) -> list[str]:
    """Put the data sets of an archive of `pack` into the cache; their names. All of it is checked before anything is placed."""
    file = Path(file)

    def refuse(what: str) -> DataError:
        return DataError(what, where=str(file), remedy="Nothing was unpacked. Make the archive again with `effbench data pack`.")

    known = {f"{name}/{entry.name}": (name, entry) for name in registry.names() for entry in _entries(name)}
    most = sum(entry.most_bytes for _, entry in known.values()) + MOST_MANIFEST + (1 << 16) + 1024 * len(known)
    try:
        # An archive's own headers can claim any amount of memory, up to its size: so that is bounded first.
        if not file.is_file() or file.stat().st_size > most:
            raise refuse(f"no such file, or longer than {size_text(most)}")
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=cache_folder()) as scratch:
            found = _stage(file, Path(scratch), known, refuse)
            sets = sorted({known[name][0] for name in found})
            absent = [name for name in known if known[name][0] in sets and name not in found]
            if not sets or absent:
                raise refuse(f"no {absent[0]} in it" if absent else "no data set in it")
            arrays = {name: _arrays(name, found, refuse) for name in sets if registry.get(name).made}
            for name in sets:
                with lock(name):
                    if name in arrays:
                        store.put(registry.get(name), registry.path(name), arrays[name])
                        continue
                    for member, staged in found.items():
                        if known[member][0] == name:
                            place(staged, registry.path(name) / known[member][1].name)
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        raise refuse(f"not a readable tar archive ({error})") from error
    except OSError as error:
        raise refuse(f"cannot be unpacked ({error.strerror or error})") from error
    return sets


@dataclass(frozen=True)
class _Array:
    """What stands for a computed array among the files: nothing but its size is known before it is read."""

    name: str
    bytes: int

    @property
    def most_bytes(self) -> int:
        return self.bytes + MOST_HEADER


def _entries(name: str) -> list[File | _Array]:
    dataset = registry.get(name)
    return [*dataset.files, *(_Array(f"{key}.npy", array.bytes) for key, array in dataset.made.items())]


def _arrays(name: str, found: dict[str, Path], refuse) -> dict[str, Any]:
    """The staged arrays of a computed set, mapped, after the catalog's check."""
    import numpy as np

    dataset = registry.get(name)
    arrays = {key: np.load(found[f"{name}/{key}.npy"], mmap_mode="r", allow_pickle=False) for key in dataset.made}
    wrong = making.faults(dataset, arrays)
    if wrong:
        raise refuse(f"'{name}' is not what the catalog says: {wrong[0]}")
    return arrays


def _stage(file: Path, scratch: Path, known: dict[str, tuple[str, File | _Array]], refuse) -> dict[str, Path]:
    found: dict[str, Path] = {}
    told = False
    with tarfile.open(file, mode="r:") as tar:
        for member in tar:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise refuse(f"member {member.name!r} is not a plain file")
            if member.name == MANIFEST and not told:
                told = True
                if member.size > MOST_MANIFEST:
                    raise refuse(f"its manifest is longer than {MOST_MANIFEST} bytes")
                written = json.loads(tar.extractfile(member).read())
                if not isinstance(written, dict) or written.get("format") != FORMAT:
                    raise refuse(f"its manifest is not of the format {FORMAT}")
                continue
            if member.name not in known or member.name in found:
                raise refuse(f"member {member.name!r} is not a file of a known data set, or there twice")
            entry = known[member.name][1]
            if member.size > entry.most_bytes or (isinstance(entry, File) and member.size not in entry.wrappers.values()):
                raise refuse(f"member {member.name!r} claims {member.size} bytes, expected {entry.bytes}")
            staged = scratch / f"{len(found)}"
            with staged.open("wb") as out:
                stream = tar.extractfile(member)
                while data := stream.read(1 << 20):
                    out.write(data)
            wrong = fault(entry, staged) if isinstance(entry, File) else ""
            if wrong:
                raise refuse(f"member {member.name!r} {wrong}")
            found[member.name] = staged
    if not told:
        raise refuse(f"no {MANIFEST} in it")
    return found
