"""The worker's side of `effbench profile`: one warmed-up call of a built method under its framework's own profiler.

Rows are {"name", "calls", "seconds", "flops", "bytes"} per call of the method: self time (what an operation called is its own row), on
the device where there is one. `flops` and `bytes` are None where no counter looks into the operation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_CALLS, SECONDS = 50, 0.5  # what is profiled: enough calls for half a second, at least three
ROWS = 60
NOT_WORK = ("cuda", "ProfilerStep", "Activity Buffer Request")  # rows of the profiler and of the runtime
# The counter sees an operation, the device's time stands at the one that it calls.
CALLED = {
    "aten::_efficient_attention_forward": "aten::_scaled_dot_product_efficient_attention",
    "aten::_flash_attention_forward": "aten::_scaled_dot_product_flash_attention",
    "aten::_cudnn_attention_forward": "aten::_scaled_dot_product_cudnn_attention",
}


def profile(call: Callable, batches: list, backend: str, device: str, out: Path, synchronise: Callable) -> dict[str, Any]:
    """{"rows", "wall": s per call without the profiler, "profiled": s with it, "calls", "trace", "flops", "uncounted", "note"}."""
    for batch in batches[:3]:
        synchronise(call(batch))
    start = time.perf_counter()
    synchronise(call(batches[0]))
    once = time.perf_counter() - start
    calls = max(3, min(MAX_CALLS, int(SECONDS / max(once, 1e-9))))
    chosen = [batches[i % len(batches)] for i in range(calls)]

    def work():
        for batch in chosen:
            synchronise(call(batch))

    start = time.perf_counter()
    work()
    wall = (time.perf_counter() - start) / calls
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    trace = {"torch": _torch, "jax": _jax}.get(backend, _python)
    rows, path, note, spent = trace(work, out, device, calls)
    counted = _counted(call, batches[0], backend)
    by_op = {name.replace(".", "::"): value for name, value in (counted.by_op if counted else {}).items()}
    moved = _moved(call, batches[0], backend)
    for row in rows:
        row["flops"] = by_op.pop(row["name"], None) or by_op.pop(CALLED.get(row["name"], ""), None)
        row["bytes"] = moved.get(row["name"]) or moved.get(CALLED.get(row["name"], ""))
    return {
        "rows": sorted(rows, key=lambda row: -row["seconds"])[:ROWS], "wall": wall, "profiled": spent, "calls": calls, "trace": str(path),
        "flops": counted.executed if counted else None, "uncounted": list(counted.uncounted[:20]) if counted else [],
        "elsewhere": by_op, "note": note,
    }  # fmt: skip


def _counted(call: Callable, batch: Any, backend: str) -> Any:
    from ..measure.flops import count

    try:
        return count(call, backend, batch)
    except Exception:
        return None  # the call itself ran before: only the counter failed, and the table says that nothing is known


def _moved(call: Callable, batch: Any, backend: str) -> dict[str, float]:
    if backend != "torch":
        return {}
    from ..measure.traffic import moved

    try:
        return moved(call, batch)
    except Exception:
        return {}


def _torch(work: Callable, out: Path, device: str, calls: int) -> tuple[list[dict], Path, str, float]:
    import torch
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with torch.profiler.profile(activities=activities) as prof:
        start = time.perf_counter()
        work()
        spent = (time.perf_counter() - start) / calls
    path = out / "trace.json"
    prof.export_chrome_trace(str(path))
    rows = [
        {"name": name, "calls": count / calls, "seconds": microseconds / 1e6 / calls}
        for name, (count, microseconds) in launched_by_none(prof.events()).items()
    ]
    for event in prof.key_averages():
        if "CUDA" in str(event.device_type):
            continue  # a kernel: its time is in the row of the operation that launched it, or among those above
        microseconds = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if microseconds > 0 and not event.key.startswith(NOT_WORK):
            rows.append({"name": event.key, "calls": event.count / calls, "seconds": microseconds / 1e6 / calls})
    return rows, path, "torch.profiler, self time" + (" on the device" if device == "cuda" else ""), spent


def launched_by_none(events: Iterable) -> dict[str, tuple[int, float]]:
    """{kernel: (launches, us)} of device kernels that no operation of the framework launched, as Triton's."""
    left: dict[str, list[float]] = {}
    for event in events:
        if "CUDA" in str(event.device_type):
            entry = left.setdefault(event.name, [0, 0.0])
            entry[0] += 1
            entry[1] += event.time_range.elapsed_us()
        else:
            for kernel in event.kernels:
                entry = left.setdefault(kernel.name, [0, 0.0])
                entry[0] -= 1
                entry[1] -= kernel.duration
    return {name: (n, spent) for name, (n, spent) in left.items() if n > 0 and spent > 0 and not name.startswith(NOT_WORK)}


def _jax(work: Callable, out: Path, device: str, calls: int) -> tuple[list[dict], Path, str, float]:
    import gzip
    import json

    import jax

    with jax.profiler.trace(str(out)):
        start = time.perf_counter()
        work()
        spent = (time.perf_counter() - start) / calls
    made = sorted(out.glob("plugins/profile/*/*.trace.json.gz"))
    if not made:
        return [], out, "jax.profiler wrote no trace", spent
    with gzip.open(made[-1]) as stream:
        events = json.load(stream)["traceEvents"]
    total: dict[str, list[float]] = {}
    for name, seconds in self_times(list(operations(events))):
        entry = total.setdefault(name, [0.0, 0.0])
        entry[0] += 1
        entry[1] += seconds
    rows = [{"name": name, "calls": n / calls, "seconds": seconds / calls} for name, (n, seconds) in total.items()]
    return rows, made[-1], "jax.profiler, operations of the compiled program (fusions), self time", spent


def operations(events: list[dict]) -> Iterator[tuple[Any, float, float, str]]:
    """(thread, start s, duration s, name) of what the compiled program ran: marked with its HLO name, or on a device's own line."""
    devices = {e["pid"] for e in events if e.get("name") == "process_name" and "/device:" in e.get("args", {}).get("name", "")}
    for event in events:
        if event.get("ph") != "X":
            continue
        args = event.get("args", {})
        if "hlo_op" in args:
            yield (event["pid"], event["tid"]), event["ts"] / 1e6, event["dur"] / 1e6, str(args["hlo_op"])
        elif event["pid"] in devices and "hlo_module" in args:
            yield (event["pid"], event["tid"]), event["ts"] / 1e6, event["dur"] / 1e6, event["name"]


def self_times(spans: list[tuple[Any, float, float, str]]) -> Iterator[tuple[str, float]]:
    """Duration of each span without the spans inside it on the same thread."""
    open_spans: list[list] = []  # [thread, end, name, self]
    for thread, start, duration, name in sorted(spans, key=lambda span: (str(span[0]), span[1], -span[2])):
        while open_spans and (open_spans[-1][0] != thread or open_spans[-1][1] <= start + 1e-12):
            done = open_spans.pop()
            yield done[2], done[3]
        if open_spans:
            open_spans[-1][3] -= duration
        open_spans.append([thread, start + duration, name, duration])
    for done in open_spans:
        yield done[2], done[3]


def _python(work: Callable, out: Path, device: str, calls: int) -> tuple[list[dict], Path, str, float]:
    import cProfile
    import pstats

    prof = cProfile.Profile()
    start = time.perf_counter()
    prof.runcall(work)
    spent = (time.perf_counter() - start) / calls
    path = out / "profile.pstats"
    prof.dump_stats(path)
    rows = []
    for (file, line, name), (_, number, own, _, _) in pstats.Stats(prof).stats.items():
        place = f" ({Path(file).name}:{line})" if line else ""
        rows.append({"name": name + place, "calls": number / calls, "seconds": own / calls})
    return rows, path, "cProfile, self time of Python and C functions; its own cost is in every call", spent
