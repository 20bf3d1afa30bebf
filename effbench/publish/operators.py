"""The table of `effbench profile`: operations of one call, the dearest first."""

from __future__ import annotations

from typing import Any

from . import format as fmt


def text(found: dict[str, Any], *, limit: int = 25) -> str:
    def part(value: float | None) -> str:
        return fmt.MISSING if value is None else f"{value:.1%}"

    def roof(row: dict[str, Any]) -> str:
        return f"{part(row['roof'])} {row['bound']}".strip()  # of memory, above 100 % where a cache gives the bytes

    head = ("operation", "calls", "time", "share", "FLOPs", "bytes", "FLOP/s", "of the roof")
    lines = [
        (
            fmt.clean(row["name"], 60), f"{row['calls']:.3g}", fmt.number(row["seconds"], "s"), part(row["share"]),
            fmt.number(row["flops"], "FLOP"), fmt.number(row["bytes"], "B"), fmt.number(row["rate"], "FLOP/s"), roof(row),
        )
        for row in found["rows"][:limit]
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    table = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
        for line in (head, *lines)
    ]
    settings_of = fmt.settings({**found["params"], **found["knobs"]})
    title = (
        f"{found['task']}/{found['method']} {settings_of} on {found['data']}, {found['case']}, {found['device']}, {found['dtype']}"
    )
    rest = len(found["rows"]) - limit
    tail = [f"{rest} further rows in --json"] if rest > 0 else []
    tail.append(
        f"a call: {fmt.number(found['wall'], 's')} ({fmt.number(found['profiled'], 's')} under the profiler, {found['calls']} calls), "
        f"{fmt.number(found['flops'], 'FLOP')}{seen(found)}, {fmt.number(found['bytes'], 'B')}, {fmt.number(found['rate'], 'FLOP/s')}, "
        f"{roof(found)} of the roof"
    )
    tail.append(f"{found['note']}")
    if found["elsewhere"]:
        names = ", ".join(f"{name} {fmt.number(value, 'FLOP')}" for name, value in found["elsewhere"].items())
        tail.append(f"counted, with no row of that name: {names}")
    if found["uncounted"]:
        tail.append(f"not counted: {', '.join(found['uncounted'])}")
    if found["peak"] is None:
        tail.append("no roof for this machine and type: `effbench doctor --calibrate`")
    return "\n".join([title, "", *table, "", *tail, f"trace: {found['trace']}"])


def seen(found: dict[str, Any]) -> str:
    """What the counter saw, where the formula says otherwise."""
    flops, counted = found["flops"], found["counted"]
    if flops is None or counted is None or abs(flops - counted) <= 0.01 * max(flops, counted):
        return ""
    return f" by the method's formula (the counter saw {fmt.number(counted, 'FLOP')})"
