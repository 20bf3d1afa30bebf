"""How this host is set up, as far as that decides what can be measured on it. Reads /proc and /sys only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import memory

PROC, SYS = Path("/proc"), Path("/sys")
MIN_MEMORY = 2 << 30  # B


@dataclass(frozen=True)
class Finding:
    name: str
    state: str  # ok | warn | bad
    value: str
    remedy: str = ""


def findings(threads: int = 1) -> list[Finding]:
    checks = (frequency, turbo, siblings, huge_pages, quota, layout, clocks, free_memory, peak_mark, power)
    return [found for check in checks if (found := check()) is not None] + [cores(threads), thread_pools(threads)]


def frequency() -> Finding:
    governors = {_text(path) for path in (SYS / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if not governors:
        remedy = "Nothing can be set from in here: a virtual machine hides its clock. Rely on ratios of one round."
        return Finding("frequency governor", "warn", "hidden by this system", remedy)
    state = "ok" if governors == {"performance"} else "warn"
    return Finding(
        "frequency governor", state, ", ".join(sorted(governors)), unless_ok(state, "`cpupower frequency-set -g performance`")
    )


def turbo() -> Finding | None:
    """Turbo clocks depend on temperature and on what the neighbouring cores do."""
    no_turbo, boost = _text(SYS / "devices/system/cpu/intel_pstate/no_turbo"), _text(SYS / "devices/system/cpu/cpufreq/boost")
    if not no_turbo and not boost:
        return None
    on = no_turbo == "0" if no_turbo else boost == "1"
    where = "intel_pstate/no_turbo with 1" if no_turbo else "cpufreq/boost with 0"
    remedy = f"For claims about seconds write /sys/devices/system/cpu/{where}."
    return Finding("turbo", "warn" if on else "ok", "on" if on else "off", remedy if on else "")


def siblings() -> Finding | None:
    active = _text(SYS / "devices/system/cpu/smt/active")
    if active not in ("0", "1"):
        return None
    state = "warn" if active == "1" else "ok"
    remedy = (
        "Two threads share a core: leave the siblings of timed cores idle, or write off to /sys/devices/system/cpu/smt/control."
    )
    return Finding("hyper-threads", state, "on" if active == "1" else "off", unless_ok(state, remedy))


def huge_pages() -> Finding | None:
    text = _text(SYS / "kernel/mm/transparent_hugepage/enabled")
    chosen = text.partition("[")[2].partition("]")[0]
    if not chosen:
        return None
    state = "warn" if chosen == "always" else "ok"
    remedy = "Whether an array gets huge pages is luck: write madvise to /sys/kernel/mm/transparent_hugepage/enabled."
    return Finding("transparent huge pages", state, chosen, unless_ok(state, remedy))


def cores(threads: int) -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    text = f"{threads} timed threads, {usable} cores may be used"
    if not hasattr(os, "sched_setaffinity"):
        return Finding("thread pinning", "warn", f"this system cannot pin; {text}", "Use Linux for claims about seconds.")
    if usable > threads:
        return Finding("thread pinning", "ok", f"{text}; the engine pins the worker apart from itself")
    state = "bad" if usable < threads else "warn"
    return Finding(
        "thread pinning", state, text, f"Set `threads` in the suite to at most {max(1, usable - 1)}, or give it more cores."
    )


def thread_pools(threads: int) -> Finding:
    """The engine sets these for its workers; only calls in this process (notebooks) are concerned."""
    set_to = os.environ.get("OMP_NUM_THREADS", "")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pinned = set_to == str(threads) or usable <= threads
    text = f"OMP_NUM_THREADS={set_to or 'unset'}; workers of `effbench run` get {threads}"
    remedy = f"Calls of your own, as in a notebook, use all cores: start it with OMP_NUM_THREADS={threads}."
    return Finding("thread pools", "ok" if pinned else "warn", text, "" if pinned else remedy)


def quota(own: str | None = None) -> Finding | None:
    """CPU seconds a second that the control group allows: a timed thread is stopped in its tracks when they are spent."""
    allowed = min((value for value in map(_quota_of, _groups("cpu", own)) if value), default=None)
    usable = os.cpu_count() or 1
    if allowed is None:
        return Finding("CPU quota", "ok", "none")
    state = "warn" if allowed >= usable else "bad"
    remedy = "A quota stops running threads for milliseconds: give whole cores (cpuset) in place of shares of time."
    return Finding("CPU quota", state, f"{allowed:.2f} of {usable} cores", remedy)


def _groups(controller: str, own: str | None = None) -> list[Path]:
    """Control group folders of this process from the inside out, of version 1 or 2."""
    root, found = SYS / "fs/cgroup", []
    for line in (own if own is not None else _text(PROC / "self/cgroup")).splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0":
            base = root
        elif controller in names.split(","):
            base = next((root / name for name in (names, controller) if (root / name).is_dir()), root / controller)
        else:
            continue
        place = Path(path.strip().lstrip("/"))
        found += [base / part for part in (place, *place.parents)]
    return found


def _quota_of(group: Path) -> float | None:
    words = _text(group / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    limit, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    return int(limit) / int(period) if limit.isdigit() and int(limit) > 0 and period.isdigit() else None


def quota_stops() -> int | None:
    """How often the quota has stopped this control group so far; None where nothing counts it."""
    for group in _groups("cpu"):
        for line in _text(group / "cpu.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "nr_throttled" and value.isdigit():
                return int(value)
    return None


def layout() -> Finding | None:
    text = _text(PROC / "sys/kernel/randomize_va_space")
    if not text:
        return None
    if text == "0":
        remedy = "Write 2 to /proc/sys/kernel/randomize_va_space: with one layout for all, the spread between processes is hidden."
        return Finding("address randomisation", "warn", "off", remedy)
    return Finding("address randomisation", "ok", f"on ({text}); fresh processes average over layouts")


def clocks() -> Finding:
    steps = []
    for _ in range(50):
        start = now = time.perf_counter()
        while now == start:
            now = time.perf_counter()
        steps.append(now - start)
    step = median(steps)
    source = _text(SYS / "devices/system/clocksource/clocksource0/current_clocksource")
    slow = step > 1e-6 or source in ("hpet", "acpi_pm", "jiffies")
    text = f"perf_counter steps by {step * 1e9:.0f} ns" + (f", clock source {source}" if source else "")
    remedy = "The kernel does not trust its time-stamp counter: boot with clocksource=tsc, or time only calls far above 1 us."
    return Finding("timer", "bad" if slow else "ok", text, remedy if slow else "")


def free_memory() -> Finding:
    free = _available()
    if free is None:
        return Finding("memory", "warn", "unknown", "This system does not tell what is free: set `memory` in the suite's limits.")
    state = "bad" if free < MIN_MEMORY // 2 else "warn" if free < MIN_MEMORY else "ok"
    return Finding(
        "memory", state, f"{free / 2**30:.1f} GiB available", unless_ok(state, "End other programs: swapping ruins every number.")
    )


def _available() -> int | None:
    fields = dict(line.split(":", 1) for line in _text(PROC / "meminfo").splitlines() if ":" in line)
    text = fields.get("MemAvailable", "").split()
    return int(text[0]) * 1024 if text else None


def peak_mark() -> Finding:
    if memory.reset_peak() is not None:
        return Finding("peak memory", "ok", "the kernel's high-water mark can be reset")
    remedy = "Peak memory is missing from records here: the sandbox keeps /proc/self/clear_refs from working."
    return Finding("peak memory", "warn", "the kernel's high-water mark cannot be reset", remedy)


def power() -> Finding | None:
    adapters = [_text(path / "online") for path in (SYS / "class/power_supply").glob("*") if _text(path / "type") == "Mains"]
    if not adapters:
        return None
    on = "1" in adapters
    return Finding(
        "power", "ok" if on else "bad", "mains" if on else "battery", "" if on else "Plug it in: on battery the clock is held down."
    )


def unless_ok(state: str, remedy: str) -> str:
    return "" if state == "ok" else remedy


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
