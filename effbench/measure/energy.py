"""Energy of a region from a counter, or a reason. Never an estimate from a power rating.

GPU: NVML's total energy counter (millijoules since the driver was loaded), which moves about ten times a second, so a window
must be at least 2 s long and see at least 20 updates. CPU: the package counters of Linux powercap (RAPL), where readable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..api.record import reading
from .host import gpus

MIN_SECONDS, MIN_UPDATES = 2.0, 20
POLL_SECONDS = 0.02
POWERCAP = Path("/sys/class/powercap")


def nvml_counter(uuid: str = "") -> tuple[Callable[[], float] | None, str]:
    """A function that reads joules of one GPU, or None and why not. NVML's own order is not CUDA's: name the GPU by its UUID where
    there are several; without one the first is taken."""
    try:
        import pynvml
    except ImportError:
        return None, "NVML's Python binding (nvidia-ml-py) is not installed"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid) if uuid else pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return None, f"NVML gives no energy counter ({error})"
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, ""


def rapl_counter(root: Path = POWERCAP) -> tuple[Callable[[], float] | None, str]:
    """A function that reads joules of all CPU packages, counter wraps undone, or None and why not."""
    packages = [p for p in sorted(root.glob("intel-rapl:*")) if p.name.count(":") == 1 and _text(p / "name").startswith("package")]
    if not packages:
        return None, "this machine shows no RAPL counter"
    last: dict[Path, int] = {}
    total: dict[Path, int] = {}

    def read() -> float:
        for package in packages:
            now = int(_text(package / "energy_uj"))
            step = now - last.get(package, now)
            if step < 0:
                step += int(_text(package / "max_energy_range_uj") or 0)
            total[package] = total.get(package, 0) + max(step, 0)
            last[package] = now
        return sum(total.values()) / 1e6

    try:
        read()
    except (OSError, ValueError):
        return None, "the RAPL counter is readable by root only"
    return read, ""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


class Energy:
    """Context manager over a region; `reading()` gives joules per call of it, or the reason why not.

    `counter` reads joules and only ever grows. A thread polls it to see that it moves; its own work is well below a watt.
    """

    def __init__(self, counter: Callable[[], float] | None, reason: str = "", *, clock: Callable[[], float] = time.perf_counter):
        self._counter, self._reason, self._clock = counter, reason, clock
        self.joules = self.seconds = 0.0
        self.updates = 0

    @property
    def absent(self) -> bool:
        """Whether there is no counter to read, so that a window would only cost time."""
        return self._counter is None

    def __enter__(self) -> Energy:
        if self._counter is not None:
            self._stop = threading.Event()
            self._first = self._last = self._counter()
            self._began = self._clock()
            self._thread = threading.Thread(target=self._poll, daemon=True)
            self._thread.start()
        return self

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._see()

    def _see(self) -> None:
        try:
            now = self._counter()
        except Exception as error:
            self._reason = f"the counter failed ({error})"
            self._stop.set()
            return
        if now != self._last:
            self.updates, self._last = self.updates + 1, now

    def __exit__(self, *_) -> None:
        if self._counter is None:
            return
        self._stop.set()
        self._thread.join()
        self._see()
        self.seconds = self._clock() - self._began
        self.joules = self._last - self._first

    def reading(self, calls: int = 1) -> dict:
        reason = self._reason
        if not reason and self.seconds < MIN_SECONDS:
            reason = f"a window of {self.seconds:.2f} s is shorter than {MIN_SECONDS:g} s"
        elif not reason and self.updates < MIN_UPDATES:
            reason = f"the counter moved {self.updates} times, fewer than {MIN_UPDATES}"
        if reason:
            return reading(None, "J", reason=reason)
        how = f"energy counter over {self.seconds:.1f} s, {self.updates} updates, idle power included"
        return reading(self.joules / max(calls, 1), "J", how=how, n=calls)


def meter(device: str, uuid: str = "") -> Energy:
    """The meter for "cuda" (NVML, GPU alone; by default the first visible one) or "cpu" (RAPL, packages alone)."""
    if device == "cuda":
        visible = [] if uuid else gpus()
        return Energy(*nvml_counter(uuid or (visible[0]["uuid"] if visible else "")))
    if device == "cpu":
        return Energy(*rapl_counter())
    return Energy(None, f"no energy counter is known for '{device}'")
