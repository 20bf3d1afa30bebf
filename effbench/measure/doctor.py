"""What is wrong with this host for measuring, and what to do about it. Reads only: nothing is changed, no privilege is needed.

"bad": numbers taken now cannot be trusted. "warn": they can, but intervals are wider or a reader must know. Every finding names a
value, and where it is not "ok" a remedy.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from . import floor, gpu_state, host, noise, roofline, setup_of_host
from .setup_of_host import Finding, quota_stops, unless_ok

WATCH_SECONDS = 1.0
ORDER = ("bad", "warn", "ok")


def examine(device: str = "cpu", threads: int = 1, *, seconds: float = WATCH_SECONDS) -> list[Finding]:
    """All findings about this host, for timing `threads` threads on `device`. Watches the host for `seconds`."""
    return [
        *watch(seconds),
        *setup_of_host.findings(threads),
        *(Finding(*row) for row in gpu_state.rows(required=device == "cuda")),
    ]


# -- what happens right now ----------------------------------------------------------------------------------------------


def watch(seconds: float = WATCH_SECONDS) -> list[Finding]:
    """Load, other programs, runnable threads, steal and throttling, seen over `seconds`."""
    before, throttled = noise.look(), quota_stops()
    running = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(seconds / 10)
        running.append(noise.look().running)
    after = noise.look()
    count = os.cpu_count() or 1
    found = [load(count)]
    wanting = [number for number in running if number is not None]
    if wanting:
        number = int(median(wanting)) - 1  # this process is awake while it looks
        state = "bad" if number >= count else "warn" if number else "ok"
        text = f"{number} other threads want a CPU, {count} cores (median of {len(wanting)} looks)"
        found.append(
            Finding("runnable threads", state, text, unless_ok(state, "End what runs, or wait: `ps -eo pcpu,args --sort=-pcpu`."))
        )
    if None not in (before.busy, after.busy):
        busy, idle, steal = after.busy - before.busy, after.idle - before.idle, after.steal - before.steal
        total = max(busy + idle + steal, 1)
        others = max(busy - (after.own - before.own) * os.sysconf("SC_CLK_TCK"), 0) / total
        state = "bad" if others > 0.3 else "warn" if others > 0.05 else "ok"
        remedy = "End what runs, or wait. Under load believe CPU time and ratios of one round, never seconds."
        found.append(Finding("other programs", state, f"{others:.0%} of the CPU", unless_ok(state, remedy)))
        stolen = steal / total
        state = "bad" if stolen > noise.MAX_STEAL else "warn" if stolen > 0.005 else "ok"
        remedy = "The hypervisor gives this machine's CPU to others: take a dedicated host, or measure at another time."
        found.append(Finding("steal", state, f"{stolen:.1%} of the CPU", unless_ok(state, remedy)))
    heat = (after.throttles or 0) - (before.throttles or 0)
    if after.throttles is not None:
        state = "bad" if heat else "ok"
        text = f"{heat} events while looking, {after.throttles} since boot"
        found.append(
            Finding("thermal throttling", state, text, unless_ok(state, "Let it cool; look at fans and at the power limit."))
        )
    if throttled is not None and (now := quota_stops()) is not None and now > throttled:
        text = f"the quota stopped this group {now - throttled} times while looking"
        found.append(Finding("quota throttling", "bad", text, "Raise the container's CPU limit."))
    return found


def load(count: int) -> Finding:
    value = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    state = "bad" if value > count else "warn" if value > 0.3 * count else "ok"
    remedy = "Wait until the load is below 0.3 a core, or end other programs."
    return Finding("load", state, f"{value:.2f} over the last minute, {count} cores", unless_ok(state, remedy))


# -- the answer ----------------------------------------------------------------------------------------------------------


def floor_findings(floors: list[floor.Floor]) -> list[Finding]:
    """What the A/A floor says: a flag is a false alarm, and effects below the half-width cannot be told."""
    found = []
    for item in floors:
        state = "bad" if item.flagged or item.half is None else "warn" if item.half > 0.02 else "ok"
        width = "no interval" if item.half is None else f"±{item.half:.2%} [{item.low:.4f}, {item.high:.4f}]"
        remedy = "Equal code was called different: no verdict on seconds can be had now." if item.flagged else ""
        if state == "warn":
            remedy = (
                f"Effects below {item.half:.1%} cannot be told apart here by {item.clock} time: a quieter host or more processes."
            )
        text = f"{width} {item.verdict}" + (", a false alarm" if item.flagged else "")
        found.append(Finding(f"A/A floor, {item.workload}, {item.clock}", state, text, remedy))
    return found


def widths(floors: list[floor.Floor]) -> dict[str, float]:
    """The floors that go with the roofs into the environment of every later run: half-widths of the A/A ratio."""
    return {f"{item.workload} {item.clock}": round(item.half, 5) for item in floors if item.half is not None}


def roof_findings(roofs: dict[str, Any]) -> list[Finding]:
    found = [Finding(f"roof, {dtype}", "ok", f"{rate / 1e9:.4g} GFLOP/s") for dtype, rate in sorted(roofs["matmul"].items())]
    return [*found, Finding("roof, copy", "ok", f"{roofs['copy'] / 1e9:.4g} GB/s read and written together")]


def diagnose(
    device: str = "cpu", threads: int = 1, *, seconds: float = 20.0, folder: Path | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, the A/A floor within about `seconds` (0 leaves it out) and, with `folder`, the roofs, measured anew and kept there."""
    found = examine(device, threads)
    floors = floor.measure(seconds) if seconds > 0 else []
    found += floor_findings(floors)
    more: dict[str, Any] = {"device": device, "threads": threads, "floor": [asdict(item) for item in floors]}
    if folder is not None:
        key = host.environment_key(host.fingerprint(), threads, device)
        roofline.path_of(folder, key, device, threads).unlink(missing_ok=True)
        with timed_cores(device, threads):
            roofs = roofline.load_or_calibrate(folder, key, device, threads=threads, floor=widths(floors))
        found += roof_findings(roofs)
        more |= {"roofs": roofs, "roofline": str(roofline.path_of(folder, key, device, threads))}
    return found, more


@contextlib.contextmanager
def timed_cores(device: str, threads: int) -> Iterator[None]:
    """The last cores, which timed workers get too: roofs and methods are measured in the same place."""
    if device != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def summary(findings: list[Finding], **more: Any) -> dict[str, Any]:
    """As data: {"state": the worst, "findings": [...]} and what else there is."""
    worst = next((state for state in ORDER if any(found.state == state for found in findings)), "ok")
    return {"state": worst, "findings": [asdict(found) for found in findings], **more}


def text(findings: list[Finding]) -> str:
    """For a person: the worst first, each remedy under its finding."""
    width = max(len(found.name) for found in findings)
    lines = []
    for found in sorted(findings, key=lambda found: ORDER.index(found.state)):
        lines.append(f"{found.state:<4}  {found.name:<{width}}  {found.value}")
        if found.remedy:
            lines.append(f"      {'':<{width}}  -> {found.remedy}")
    return "\n".join(lines)
