"""Peak host memory of this process, by resetting the kernel's high-water mark.

`ru_maxrss` is inherited over fork and exec, so a small child of a large parent reports the parent's peak; VmHWM after a reset
through /proc/self/clear_refs does not.
"""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def _status(field: str) -> int | None:
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def resident() -> int | None:
    """Resident bytes of this process now."""
    return _status("VmRSS")


def reset_peak() -> int | None:
    """Reset the high-water mark; returns the resident bytes it starts from, or None where the kernel does not allow it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    start, peak = resident(), _status("VmHWM")
    if start is None or peak is None or peak > start + (8 << 20):
        return None
    return start


def peak() -> int | None:
    """The high-water mark since the last reset, in bytes."""
    return _status("VmHWM")
