"""What NVML tells about the NVIDIA GPUs before anything is timed on them: other programs, clocks, limits. Starts no CUDA context."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str, str, str]  # name, state, value, remedy
DRIVER = Path("/proc/driver/nvidia/version")

# Bits of nvmlDeviceGetCurrentClocksThrottleReasons; idle and "set by an application" are no trouble.
THROTTLES = {
    0x4: ("software power cap", "warn"), 0x8: ("hardware slowdown", "bad"), 0x20: ("software thermal slowdown", "bad"),
    0x40: ("hardware thermal slowdown", "bad"), 0x80: ("hardware power brake", "bad"), 0x10: ("sync boost", "warn"),
    0x100: ("display clocks", "warn"),
}  # fmt: skip


def rows(*, required: bool = False, own: frozenset[int] | None = None) -> list[Row]:
    """Findings for every GPU; [] where there is none and none is required. `own`: processes that are ours."""
    try:
        import pynvml
    except ImportError:
        if DRIVER.exists() or required:
            remedy = "pip install 'effbench[gpu]': without it nobody sees who else uses the GPU."
            return [("GPU", "warn", "NVML's Python binding is not installed", remedy)]
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (
            [("GPU", "bad", f"NVML does not answer ({error})", "Is a driver loaded, and the device visible?")] if required else []
        )
    own = own or frozenset({os.getpid()})
    found: list[Row] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = pynvml.nvmlDeviceGetName(handle)
        label = f"GPU {index}"
        found.append((label, "ok", name.decode() if isinstance(name, bytes) else str(name), ""))
        for check in (_others, _throttling, _clock, _persistence, _heat):
            try:
                found += [(f"{label} {row[0]}", *row[1:]) for row in check(pynvml, handle, own)]
            except (pynvml.NVMLError, AttributeError):
                continue  # older drivers and virtual GPUs answer only part of the questions
    return found


def _others(nvml: Any, handle: Any, own: frozenset[int]) -> Iterator[Row]:
    """Foreign processes. Inside a container their numbers are the host's, so a process of ours may not be known as such."""
    foreign = [process for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if process.pid not in own]
    use = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    if foreign:
        names = ", ".join(str(process.pid) for process in foreign[:5])
        yield "others", "bad", f"{len(foreign)} other processes hold it ({names}), {use} % busy", "Choose a free GPU, or end them."
    else:
        state = "warn" if use > 5 else "ok"
        yield (
            "others",
            state,
            f"no other process is shown, {use} % busy",
            "Somebody unseen uses it: look on the host." if use > 5 else "",
        )


def _throttling(nvml: Any, handle: Any, own: frozenset[int]) -> Iterator[Row]:
    ask = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    bits = ask(handle)
    active = [(text, state) for bit, (text, state) in THROTTLES.items() if bits & bit]
    state = "bad" if any(state == "bad" for _, state in active) else "warn" if active else "ok"
    remedy = "Look at cooling and `nvidia-smi -q -d PERFORMANCE,POWER`." if active else ""
    yield "throttling", state, ", ".join(text for text, _ in active) or "none", remedy


def _clock(nvml: Any, handle: Any, own: frozenset[int]) -> Iterator[Row]:
    now, most = (ask(handle, nvml.NVML_CLOCK_SM) for ask in (nvml.nvmlDeviceGetClockInfo, nvml.nvmlDeviceGetMaxClockInfo))
    yield "clock", "ok", f"{now} MHz now, {most} MHz at most (an idle GPU clocks down)", ""


def _persistence(nvml: Any, handle: Any, own: frozenset[int]) -> Iterator[Row]:
    on = bool(nvml.nvmlDeviceGetPersistenceMode(handle))
    yield (
        "persistence",
        "ok" if on else "warn",
        "on" if on else "off",
        "" if on else "`nvidia-smi -pm 1`: else the first call loads the driver.",
    )


def _heat(nvml: Any, handle: Any, own: frozenset[int]) -> Iterator[Row]:
    degrees = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    state = "warn" if degrees >= 80 else "ok"
    yield "temperature", state, f"{degrees} °C", "Near its limit it throttles: let it cool." if state == "warn" else ""
