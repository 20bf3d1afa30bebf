"""C source into a shared library: compiled once with the system's compiler, kept in the cache, loaded with ctypes.

The library's name holds a digest of source, flags and compiler, so that a stale library is never loaded. No flag names a
processor: the source itself picks its instructions when it runs, so that a cache shared by several machines stays right.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")
SECONDS = 120  # for one compilation


@cache
def library(name: str, source: str) -> tuple[ctypes.CDLL | None, str]:
    """The loaded library and "", or None and the reason why there is none."""
    compiler = next(
        (path for each in (os.environ.get("CC", ""), "cc", "gcc", "clang") if each and (path := shutil.which(each))), ""
    )
    if os.environ.get("EFFBENCH_NO_COMPILER") or not compiler:
        return None, "no C compiler (install gcc or clang, or set CC)"
    identity = "\0".join((source, *FLAGS, os.path.realpath(compiler), platform.machine(), platform.libc_ver()[1]))
    file = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    reason = ""
    for place in (data_folder, temporary_folder):
        try:
            folder = place()
            if not trusted(folder):
                continue
            target = folder / file
            if not target.is_file():
                compile_into(compiler, source, target)
            return ctypes.CDLL(str(target)), ""
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            reason = f"{type(error).__name__}: {str(error).strip()[:300]}"
    return None, reason or "no folder that only this user can write into"


class CompileError(RuntimeError):
    """What the compiler said."""


def data_folder() -> Path:
    """Beside the data cache, which workers are told about."""
    data = os.environ.get("EFFBENCH_DATA")
    if data:
        return Path(data) / "compiled"
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "effbench" / "data" / "compiled"


def temporary_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"effbench-compiled-{os.getuid()}"


def trusted(folder: Path) -> bool:
    """Creates the folder. Code is loaded from it, so it must be ours and closed to others."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = folder.stat()
    return state.st_uid == os.getuid() and not state.st_mode & 0o022


def compile_into(compiler: str, source: str, target: Path) -> None:
    """Written beside the target and moved into place: readers see no library or a whole one."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        code, built = Path(scratch) / "source.c", Path(scratch) / "built.so"
        code.write_text(source)
        done = subprocess.run(
            [compiler, *FLAGS, str(code), "-o", str(built), "-lm"], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise CompileError(done.stderr)
        os.replace(built, target)
