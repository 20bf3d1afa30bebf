"""Files out of a Debian package, without root and without installing anything.

A .deb is an `ar` archive of three members; the files are in the last one, `data.tar.*`. Only the members that are asked for
are written, each under a name of ours and up to a size of ours, so nothing in the package decides where anything lands.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..api.errors import DataError
from .cache import Progress

REMEDY = "Install the package by hand, or use another source."


def download(package: str, folder: Path, *, total: int = 0, progress: Progress | None = None) -> Path:
    """`apt-get download` into `folder`; the path of the .deb. DataError with apt's own words when it does not work.

    If the machine's package lists do not do (a fresh container has none), lists of our own are fetched into `folder` and
    used for this once: the system's are left as they are, and no root is needed.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise DataError("apt-get is not on this machine", where=package, remedy=REMEDY)
    first = command([apt, "download", package], folder, 600, f"apt-get download {package}", total, progress)
    if first:
        own = ["-c", str(_own_lists(folder))]
        told = "apt-get update (package lists of our own)"
        second = command([apt, *own, "update"], folder, 300, told, 0, progress)
        if not second:
            second = command([apt, *own, "download", package], folder, 600, f"apt-get download {package}", total, progress)
        if second:
            raise DataError(f"apt-get download failed: {first}; with fresh lists: {second}", where=package, remedy=REMEDY)
    found = sorted(folder.glob("*.deb"))
    if len(found) != 1:
        raise DataError(f"apt-get download left {len(found)} packages", where=package, remedy=REMEDY)
    return found[0]


def _own_lists(folder: Path) -> Path:
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    # Read after the machine's own configuration, which may hang commands on `update` that are not ours to run.
    lines = [
        f'Dir::State::Lists "{folder}/lists";',
        f'Dir::Cache "{folder}";',
        'Acquire::Languages "none";',
        'Acquire::Retries "1";',
        'Acquire::http::Timeout "30";',
        'Acquire::https::Timeout "30";',
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
    ]
    if os.geteuid() == 0:
        lines.append('APT::Sandbox::User "root";')  # the sandbox user cannot enter our temporary folder
    config = folder / "apt.conf"
    config.write_text("\n".join(lines) + "\n")
    return config


def command(words: list[str], folder: Path, limit: float, text: str, total: int, progress: Progress | None) -> str:
    """Run to the end; "" on success, else the last error lines. The whole process group dies at `limit` seconds."""
    deadline = time.monotonic() + limit
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    process.wait(timeout=0.3)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        return f"no end after {limit:g} s"
                    if progress:
                        progress(text, sum(item.stat().st_size for item in folder.iterdir() if item.is_file()), total)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == 0:
            return ""
        output.seek(max(0, output.seek(0, io.SEEK_END) - 20_000))
        lines = output.read().decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:", "ERROR:"))] or lines
    return "; ".join(errors[-3:])[:500] or f"exit status {process.returncode}"


def extract(deb: Path, wanted: Mapping[str, tuple[Path, int]]) -> None:
    """Write members of the package's file tree: path from the root ("usr/share/...") -> (target, most bytes).

    Members that are not there are left out in silence: the caller checks what it got. DataError where the package is not
    well formed or a wanted member is a link or too long.
    """
    rest = dict(wanted)
    try:
        with _file_tree(deb) as tree:
            for member in tree:
                target, most = rest.pop(member.name.removeprefix("./"), (None, 0))
                if target is None:
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.size > most:
                    raise DataError(f"member {member.name} is a link or longer than {most} bytes", where=str(deb), remedy=REMEDY)
                with target.open("wb") as out:
                    shutil.copyfileobj(tree.extractfile(member), out)
                if not rest:
                    return
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise DataError(f"not a readable Debian package ({error})", where=str(deb), remedy=REMEDY) from error


@contextmanager
def _file_tree(deb: Path) -> Iterator[tarfile.TarFile]:
    with deb.open("rb") as stream:
        name, start, size = _data_member(stream)
        if name in ("data.tar", "data.tar.gz", "data.tar.xz", "data.tar.bz2"):
            with tarfile.open(fileobj=io.BufferedReader(_Part(stream, start, size)), mode="r|*") as tree:
                yield tree
            return
    unpacker = shutil.which("dpkg-deb")
    if unpacker is None:
        raise DataError(f"member {name} needs dpkg-deb, which is not on this machine", where=str(deb), remedy=REMEDY)
    with subprocess.Popen([unpacker, "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tree:
                yield tree
        finally:
            process.kill()


def _data_member(stream: IO[bytes]) -> tuple[str, int, int]:
    """(name, offset, size) of data.tar.* in the `ar` archive."""
    if stream.read(8) != b"!<arch>\n":
        raise ValueError("no ar archive")
    while len(head := stream.read(60)) == 60:
        name, size = head[:16].decode("ascii", "replace").strip().rstrip("/"), head[48:58].strip()
        if head[58:] != b"`\n" or not size.isdigit():
            raise ValueError("damaged ar header")
        if name.startswith("data.tar"):
            return name, stream.tell(), int(size)
        stream.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise ValueError("no member data.tar")


class _Part(io.RawIOBase):
    """A range of a file as a file of its own."""

    def __init__(self, stream: IO[bytes], start: int, size: int):
        self.stream, self.rest = stream, size
        stream.seek(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.stream.read(min(len(buffer), self.rest))
        self.rest -= len(data)
        buffer[: len(data)] = data
        return len(data)
