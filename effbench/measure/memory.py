"""Peak resident memory of this process over a region, above what was there when it began.

The kernel's high-water mark (VmHWM) is reset by writing '5' to /proc/self/clear_refs, which needs no privilege. `ru_maxrss` is of
no use: a child inherits its parent's. Where the mark cannot be reset, a thread samples the resident set every few milliseconds
and the reading says so, since it misses short peaks.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from pathlib import Path

from ..api.record import reading

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SAMPLE_SECONDS = 0.005


def resident() -> int | None:
    """Bytes resident now; None where nothing tells."""
    value = _status("VmRSS")
    if value is not None:
        return value
    try:
        import psutil

        return psutil.Process().memory_info().rss
    except Exception:
        return None


def _status(field: str) -> int | None:
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024  # the kernel says kB and means KiB
    except (OSError, ValueError, IndexError):
        pass
    return None


def reset_peak() -> int | None:
    """Set the high-water mark to what is resident now and return that in bytes; None where it does not work.

    Some sandboxes take the write and keep the mark, so it is read back. Free memory that the C allocator holds back goes to the
    kernel first: otherwise the calls made before would hide what a call needs.
    """
    release()
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    mark, now = _status("VmHWM"), _status("VmRSS")
    return now if mark is not None and now is not None and mark <= now + (8 << 20) else None


def release() -> None:
    """Give free heap memory back to the kernel, where the C library can (glibc)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def peak() -> int | None:
    """The high-water mark in bytes since the last `reset_peak`."""
    return _status("VmHWM")


class PeakMemory:
    """Context manager; `reading()` afterwards gives the peak above the baseline in bytes.

    The baseline is what was resident on entry, so load data and build the method before, or measure that too on purpose. Memory
    that a framework's own pool already held and hands out again is invisible here.
    """

    def __init__(self):
        self.baseline: int | None = None
        self.peak: int | None = None
        self.how = ""
        self._stop: threading.Event | None = None

    def __enter__(self) -> PeakMemory:
        marked = reset_peak() is not None
        self.baseline = self.peak = resident()
        if marked:
            self.how = "kernel high-water mark"
        elif self.baseline is not None:
            self.how = f"resident set sampled every {SAMPLE_SECONDS * 1e3:.0f} ms"
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._stop is not None:
            self._stop.set()
            self._thread.join()
            self._look(resident())
        elif self.how:
            self._look(peak())

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._look(resident())

    def _look(self, value: int | None) -> None:
        if value is not None:
            self.peak = max(self.peak or 0, value)

    def reading(self) -> dict:
        if self.baseline is None or self.peak is None:
            return reading(None, "B", reason="this system does not tell a process its resident memory")
        return reading(max(self.peak - self.baseline, 0), "B", how=f"{self.how}, above {self.baseline >> 20} MiB loaded before")
