"""What machine this is, which records of it may be compared, and whether something else ran while we measured."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from . import MEASURE_VERSION

FRAMEWORKS = ("numpy", "torch", "jax", "jaxlib")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")


def fingerprint() -> dict[str, Any]:
    """The machine as plain data. No framework is imported. Host name, user and paths are left out on purpose."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory": _memory(),
        "os": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions(),
        "gpus": gpus(),
        "thread_variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "blas": _blas(),
    }


def environment_key(found: Mapping[str, Any], threads: int, device: str) -> str:
    """Digest of what makes numbers comparable: CPU (or GPU) model and count, threads, OS family, framework minor versions,
    MEASURE_VERSION. Never commit, load, kernel, memory or host."""
    text = json.dumps(comparable(found, threads, device), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def comparable(found: Mapping[str, Any], threads: int, device: str) -> dict[str, Any]:
    """The fields behind `environment_key`, so that a refusal can name the ones that differ."""
    if device == "cpu":
        where = {"cpu": found.get("cpu"), "cores": found.get("cores")}
    else:
        names = sorted(gpu["name"] for gpu in found.get("gpus") or ())
        where = {"gpu": names[0] if names else device, "gpus": len(names)}
    minor = {name: ".".join(version.split("+")[0].split(".")[:2]) for name, version in (found.get("versions") or {}).items()}
    minor.pop("jaxlib", None)  # follows jax
    return {**where, "device": device, "threads": threads, "os": found.get("os"), "frameworks": minor, "measure": MEASURE_VERSION}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Fields of two `comparable` results that differ, as sentences."""
    return [f"{name}: {a.get(name)!r} against {b.get(name)!r}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]


def cpu_model() -> str:
    """Model name out of /proc/cpuinfo; on other systems what the platform says."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "cpu model") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def versions() -> dict[str, str]:
    found = {}
    for name in FRAMEWORKS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def gpus() -> list[dict[str, str]]:
    """Name, UUID and driver of the visible NVIDIA GPUs, from nvidia-smi; [] where there is none. CUDA is not initialised."""
    query = ["nvidia-smi", "--query-gpu=name,uuid,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    found = [
        dict(zip(("name", "uuid", "driver"), (part.strip() for part in line.split(",")))) for line in lines if line.count(",") == 2
    ]
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return found
    wanted = [part.strip() for part in shown.split(",") if part.strip()]
    return [
        gpu for number, gpu in enumerate(found) if str(number) in wanted or any(w and gpu["uuid"].startswith(w) for w in wanted)
    ]


def _blas() -> list[dict[str, Any]]:
    """BLAS and OpenMP libraries loaded by now, with their thread counts."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [{key: pool.get(key) for key in ("internal_api", "version", "num_threads")} for pool in threadpool_info()]
