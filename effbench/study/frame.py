"""Records as a pandas data frame, one row a record; the only place where pandas is imported."""

from __future__ import annotations

from collections.abc import Iterable

from .records import Loaded, read

IDENTITY = (
    "role", "key", "suite", "area", "task", "task_version", "method", "method_version", "backend", "data", "size", "seed",
    "device", "threads", "dtype", "case", "environment", "group", "baseline", "commit", "tree", "loaded", "data_digest",
    "measure_version", "time",
)  # fmt: skip


def load(path):
    """A data frame of the records at `path` (see `records.read` for what a path may be).

    Columns: the fields of IDENTITY; `budget.X`, `param.X`, `knob.X`; `status`, `reason`; then for every reading its value
    (SI units; NaN where missing) and, where any record has them, `<reading>.low`, `<reading>.high`.
    """
    return frame(read(path))


def frame(loaded: Loaded):
    import pandas

    rows = list(rows_of(loaded.records))
    return pandas.DataFrame(rows, columns=columns_of(rows))


def rows_of(records: Iterable[dict]):
    for record in records:
        row = {name: record.get(name, "") for name in IDENTITY}
        for prefix, name in (("budget", "budget"), ("param", "params"), ("knob", "knobs")):
            row |= {f"{prefix}.{key}": value for key, value in record[name].items()}
        row |= {"status": record["status"], "reason": record["reason"]}
        for name, reading in record["readings"].items():
            row[name] = float("nan") if reading["value"] is None else reading["value"]
            row |= {f"{name}.{end}": reading[end] for end in ("low", "high") if end in reading}
        yield row


def columns_of(rows: list[dict]) -> list[str]:
    """Identity first, then settings, status and readings by name, so that a frame's columns do not depend on record order."""
    present = {name for row in rows for name in row}
    settings = sorted(name for name in present if name.startswith(("budget.", "param.", "knob.")))
    head = [*IDENTITY, *settings, "status", "reason"]
    return head + sorted(present - set(head), key=_value_first)


def _value_first(name: str) -> tuple[str, int]:
    for order, end in enumerate((".low", ".high"), start=1):
        if name.endswith(end):
            return name[: -len(end)], order
    return name, 0
