"""The roofs of this machine, measured: peak matmul FLOP/s per dtype and copy bytes/s. They catch impossible numbers and say what
a method's share of the machine is. On the CPU for a given number of threads, through numpy and, where installed, torch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import MEASURE_VERSION

SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
IMPOSSIBLE = 1.10  # a share above this is a wrong formula or a wrong clock, not a fast method


@dataclass(frozen=True)
class Share:
    """Parts of the roofs that a call reached; None where the roof or the count is unknown. `reason` is set when impossible.

    `narrower`: it is faster than the roof of its dtype and slower than another's, as a method that narrows its data itself may be.
    """

    compute: float | None
    memory: float | None
    bound: str  # "compute" | "memory" | "" by arithmetic intensity
    reason: str = ""
    narrower: str = ""


def share(
    flops: float | None, bytes_moved: float | None, seconds: float, roofs: Mapping[str, Any], dtype: str = "float32"
) -> Share:
    """What part of the machine a call of `seconds` used. ValueError unless the time is positive."""
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, not {seconds}")
    peak, copy = (roofs.get("matmul") or {}).get(dtype), roofs.get("copy")
    compute = flops / seconds / peak if flops is not None and peak else None
    memory = bytes_moved / seconds / copy if bytes_moved is not None and copy else None
    bound = ""
    if compute is not None and memory is not None:
        bound = "compute" if flops / peak >= bytes_moved / copy else "memory"
    reason = narrower = ""
    if compute is not None and compute > IMPOSSIBLE:
        above = f"{flops / seconds:.3g} FLOP/s is {compute:.1f} times what this machine reached ({peak:.3g}, {dtype})"
        tops = [rate for rate in roofs["matmul"].values() if isinstance(rate, (int, float))]
        if flops / seconds <= IMPOSSIBLE * max(tops):
            narrower = f"{above}: does it compute in a narrower type?"
        else:
            reason = above
    elif memory is not None and memory > IMPOSSIBLE and bytes_moved > COPY_BYTES.get(str(roofs.get("device")), 0):
        # Less data than the copy used may sit in a cache, which is faster than memory by right.
        reason = f"{bytes_moved / seconds:.3g} B/s is {memory:.1f} times what this machine reached ({copy:.3g})"
    return Share(compute, memory, bound, reason, narrower)


def calibrate(device: str = "cpu", *, threads: int = 1, seconds: float = 0.2) -> dict[str, Any]:
    """Measure the roofs: best of several sizes, `seconds` each, random data (zeros run faster on a GPU).

    {"device", "threads", "matmul": {dtype: FLOP/s}, "copy": B/s read and written together, "measure"}.
    """
    if device == "cpu":
        matmul, copy = _cpu(threads, seconds)
    elif device == "cuda":
        matmul, copy = _cuda(seconds)
    else:
        raise ValueError(f"no roofline is measured on '{device}' (known: cpu, cuda)")
    return {"device": device, "threads": threads, "matmul": matmul, "copy": copy, "measure": MEASURE_VERSION}


def path_of(folder: Path, environment: str, device: str, threads: int) -> Path:
    return Path(folder) / f"roofline-{environment}-{device}-{threads}.json"


def load(folder: Path, environment: str, device: str = "cpu", threads: int = 1) -> dict[str, Any] | None:
    """The kept roofs of this environment key; None where they are missing, damaged or of another version."""
    try:
        roofs = json.loads(path_of(folder, environment, device, threads).read_text())
    except (OSError, ValueError):
        return None
    return roofs if sound(roofs) else None


def sound(roofs: Any) -> bool:
    """Whether these are roofs, of this version."""
    return isinstance(roofs, dict) and roofs.get("measure") == MEASURE_VERSION and isinstance(roofs.get("matmul"), dict)


def load_or_calibrate(
    folder: Path,
    environment: str,
    device: str = "cpu",
    *,
    threads: int = 1,
    seconds: float = 0.2,
    floor: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The roofs of this environment key out of `folder`, measured where they are missing, damaged or of another version.

    `floor` is kept beside what is measured: the half-widths of this host's A/A ratios.
    """
    path = path_of(folder, environment, device, threads)
    if roofs := load(folder, environment, device, threads):
        return roofs
    roofs = calibrate(device, threads=threads, seconds=seconds) | ({"floor": floor} if floor else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{os.getpid()}.part")
    written.write_text(json.dumps(roofs, sort_keys=True))
    written.replace(path)  # two processes may calibrate at once: a reader sees one whole file or the other
    return roofs


def best_rate(work: float, call: Callable[[], Any], seconds: float, synchronise: Callable[[], Any] = lambda: None) -> float:
    """`work` per second of the fastest call within `seconds`, at least three calls, the first dropped."""
    call()
    synchronise()
    fastest, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        synchronise()
        fastest = min(fastest, time.perf_counter() - start)
        calls += 1
    return work / max(fastest, 1e-9)


def _cpu(threads: int, seconds: float) -> tuple[dict[str, float], float]:
    import numpy as np
    from threadpoolctl import threadpool_limits

    rng, matmul = np.random.default_rng(0), {}
    each = seconds / len(SIZES["cpu"])
    with threadpool_limits(threads):
        for dtype in ("float32", "float64"):
            for n in SIZES["cpu"]:
                a, b = (rng.standard_normal((n, n)).astype(dtype) for _ in range(2))
                out = np.empty_like(a)
                rate = best_rate(2.0 * n**3, lambda a=a, b=b, out=out: np.matmul(a, b, out=out), each)
                matmul[dtype] = max(matmul.get(dtype, 0.0), rate)
        source = np.ones(COPY_BYTES["cpu"] // 2, dtype=np.uint8)
        target = np.empty_like(source)
        copy = best_rate(2.0 * source.nbytes, lambda: np.copyto(target, source), seconds)
    for dtype, rate in _cpu_torch(threads, each).items():
        matmul[dtype] = max(matmul.get(dtype, 0.0), rate)
    return matmul, copy


def _cpu_torch(threads: int, seconds: float) -> dict[str, float]:
    """torch's own kernels, which beat numpy's BLAS on some machines and know bfloat16 and int8. {} where torch is missing."""
    try:
        import torch
    except ImportError:
        return {}
    found: dict[str, float] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for n in SIZES["cpu"]:
            for dtype, call in _products(torch, n, "cpu").items():
                try:
                    found[dtype] = max(found.get(dtype, 0.0), best_rate(2.0 * n**3, call, seconds))
                except RuntimeError:
                    continue  # this CPU has no such kernel
    finally:
        torch.set_num_threads(before)
    return found


def _cuda(seconds: float) -> tuple[dict[str, float], float]:
    import torch

    found: dict[str, float] = {}
    each = seconds / len(SIZES["cuda"])
    for n in SIZES["cuda"]:
        for dtype, call in _products(torch, n, "cuda").items():
            try:
                found[dtype] = max(found.get(dtype, 0.0), best_rate(2.0 * n**3, call, each, torch.cuda.synchronize))
            except RuntimeError:
                continue
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        n = SIZES["cuda"][-1]
        found["tf32"] = best_rate(2.0 * n**3, _products(torch, n, "cuda")["float32"], each, torch.cuda.synchronize)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    source = torch.ones(COPY_BYTES["cuda"] // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return found, best_rate(2.0 * source.numel(), lambda: target.copy_(source), seconds, torch.cuda.synchronize)


def _products(torch, n: int, device: str) -> dict[str, Callable[[], Any]]:
    """dtype -> a call of one n x n product; operands are made when the call first runs."""

    def real(dtype):
        held: list = []

        def call():
            if not held:
                held.extend(torch.randn(n, n, device=device).to(dtype) for _ in range(2))
            return held[0] @ held[1]

        return call

    def int8():
        held: list = []

        def call():
            if not held:
                held.extend(torch.randint(-128, 127, (n, n), device=device, dtype=torch.int8) for _ in range(2))
                held[1] = held[1].t()  # the layout that the int8 units read; with rows they reach a tenth
            return torch._int_mm(held[0], held[1])

        return call

    names = ("float32", "bfloat16") if device == "cpu" else ("float32", "float64", "bfloat16", "float16")
    found = {name: real(getattr(torch, name)) for name in names}
    if hasattr(torch, "_int_mm"):
        found["int8"] = int8()
    return found
