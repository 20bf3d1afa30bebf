"""Did something else run while we measured? Cheap looks at the kernel's counters before and after."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC, CPUS = Path("/proc"), Path("/sys/devices/system/cpu")
MAX_STEAL, MAX_OTHERS, MIN_CLOCK = 0.02, 0.10, 0.85
MIN_SHARE = 0.9  # of a turn that single-threaded work must have had its core
MAX_FILES = 8  # CPUs whose clock is read


@dataclass(frozen=True)
class Sample:
    """One look. Times in clock ticks since boot, all CPUs together; None where the system does not tell."""

    at: float  # s, monotonic
    running: int | None  # threads that want a CPU now, ours included
    busy: int | None
    idle: int | None
    steal: int | None
    own: float  # s of CPU used by this process and its finished children
    megahertz: float | None
    throttles: int | None


def look() -> Sample:
    """Tens of microseconds; nothing here needs a privilege."""
    busy = idle = steal = None
    fields = _read(f"{PROC}/stat").partition("\n")[0].split()
    if len(fields) >= 9:
        ticks = [int(x) for x in fields[1:9]]  # user nice system idle iowait irq softirq steal
        idle, steal = ticks[3] + ticks[4], ticks[7]
        busy = sum(ticks) - idle - steal
    load = _read(f"{PROC}/loadavg").split()
    times = os.times()
    return Sample(
        at=time.monotonic(),
        running=int(load[3].partition("/")[0]) if len(load) > 3 else None,
        busy=busy,
        idle=idle,
        steal=steal,
        own=times.user + times.system + times.children_user + times.children_system,
        megahertz=_clock(),
        throttles=_throttles(),
    )


def disturbed(before: Sample, after: Sample, *, own: float | None = None) -> str:
    """Why the time between two looks is suspect, or "". `own` is CPU seconds that we know we used ourselves, all processes
    together; by default this process and its finished children."""
    reasons = []
    cores = _cores()
    if None not in (before.busy, after.busy, before.steal, after.steal):
        busy, idle, steal = (after.busy - before.busy), (after.idle - before.idle), (after.steal - before.steal)
        total = busy + idle + steal
        if total > 0 and steal / total > MAX_STEAL:
            reasons.append(f"the hypervisor took {steal / total:.0%} of the CPU")
        if total >= 20:  # below a fifth of a second of ticks, the share of others is rounding
            used = (after.own - before.own if own is None else own) * os.sysconf("SC_CLK_TCK")
            others = max(busy - used, 0) / total
            if others > MAX_OTHERS:
                reasons.append(f"other processes used {others:.0%} of the CPU")
    if after.running is not None and after.running > cores + 1:
        reasons.append(f"{after.running} threads wanted {cores} cores")
    if before.megahertz and after.megahertz and after.megahertz < MIN_CLOCK * before.megahertz:
        reasons.append(f"the clock fell from {before.megahertz:.0f} to {after.megahertz:.0f} MHz")
    if before.throttles is not None and after.throttles is not None and after.throttles > before.throttles:
        reasons.append(f"the CPU throttled {after.throttles - before.throttles} times")
    return "; ".join(reasons)


def descheduled(wall: float, cpu: float) -> str:
    """Why single-threaded work of `wall` and `cpu` seconds is suspect: something else held its core for more than a tenth; or ""."""
    return f"the timed code had its core for {cpu / wall:.0%} of the time" if 0 <= cpu < MIN_SHARE * wall else ""


class Watch:
    """Context manager around a measurement: `reason` afterwards says what disturbed it, or is ""."""

    def __enter__(self) -> Watch:
        self.before, self.reason = look(), ""
        return self

    def __exit__(self, *_) -> None:
        self.after = look()
        self.reason = disturbed(self.before, self.after)


@cache
def _cores() -> int:
    return os.cpu_count() or 1


def _read(path: Path | str) -> str:
    """Two system calls and no decoder: a look is part of what the parent costs while others are timed."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode()
    except (OSError, UnicodeDecodeError):
        return ""
    finally:
        os.close(fd)


@cache
def _per_cpu(root: Path, name: str) -> tuple[str, ...]:
    """The files of this name of the last CPUs, where timed workers are pinned; reading those of hundreds would be felt."""
    found = [path for path in root.glob(f"cpu[0-9]*/{name}") if path.parts[len(root.parts)][3:].isdigit()]
    found.sort(key=lambda path: int(path.parts[len(root.parts)][3:]))
    return tuple(map(str, found[-MAX_FILES:]))


def _clock() -> float | None:
    """Mean MHz over the last CPUs; None on machines that hide it."""
    kilohertz = [_read(path) for path in _per_cpu(CPUS, "cpufreq/scaling_cur_freq")]
    numbers = [int(text) for text in kilohertz if text.strip().isdigit()]
    return sum(numbers) / len(numbers) / 1e3 if numbers else None


def _throttles() -> int | None:
    counts = [_read(path) for path in _per_cpu(CPUS, "thermal_throttle/core_throttle_count")]
    numbers = [int(text) for text in counts if text.strip().isdigit()]
    return sum(numbers) if numbers else None
