"""The tables of the site: what `tables.table` makes of a group, with ranks, intervals as numbers, and the way to the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ...stats.rank import ranks
from .. import format as fmt
from ..fronts import ends, peers
from ..groups import Group
from ..tables import Cell, Column, Line, Table, table

FACETS = {"backend", "case", "status", "dtype", "budget"}
NAN = float("nan")


def board(group: Group, *, fronts, link: Callable[[str], str], drawer: Callable[[Iterable[dict]], str], stale: Callable) -> Table:
    """The table of a group. `link(method)` is its page, `drawer(records)` where they lie, `stale(records)` (state, why)."""
    made = table(group, fronts=fronts)
    places = rank_texts(group, [column.name for column in made.columns if column.numeric])
    columns = tuple(replace(c, facet=c.name in FACETS, unit=unit_of(group, c.name) if c.numeric else "") for c in made.columns)
    lines = []
    for line in made.lines:
        cells = [
            replace(cell, raw=_finite(cell.raw) if column.numeric else cell.raw, rank=places.get((id(line.row), column.name), ""), **bounds_of(line.row, column))
            for cell, column in zip(line.cells, columns)
        ]  # fmt: skip
        state, why = stale(line.row.records)
        lines.append(replace(line, cells=(*cells, Cell(state, state, why=why)), drawer=drawer(line.row.records)))
    notes = tuple(made.notes)
    return replace(made, columns=(*columns, Column("sources", "sources", facet=True)), lines=tuple(lines), notes=notes)


def _finite(value):
    return value if isinstance(value, (int, float)) else None


def unit_of(group: Group, name: str) -> str:
    return next((row.readings[name].get("unit", "") for row in group.rows if name in row.readings), "")


def bounds_of(row, column: Column) -> dict:
    if not column.numeric:
        return {}
    reading = (
        row.ratios.get(column.name.removesuffix(".ratio")) if column.name.endswith(".ratio") else row.readings.get(column.name)
    )
    if not reading or reading.get("value") is None:
        return {}
    return {"low": reading.get("low"), "high": reading.get("high")}


def rank_texts(group: Group, names: Sequence[str]) -> dict[tuple[int, str], str]:
    """(id of row, reading) -> rank among the rows that were asked the same, on one machine: a group holds no other."""
    out = {}
    for rows in peers(group):
        for name in names:
            spans = [ends(row, name) or (NAN, NAN) for row in rows]
            if name not in group.better or sum(low == low for low, _ in spans) < 2:
                continue
            found = ranks([low for low, _ in spans], [high for _, high in spans], group.better[name])
            present = sum(low == low for low, _ in spans)
            for row, span, rank in zip(rows, spans, found):
                if span[0] == span[0]:
                    # Rows without this reading hold no place.
                    worst = rank.worst - (len(rows) - present)
                    out[id(row), name] = f"{rank.best}" if rank.best >= worst else f"{rank.best}–{worst}"
    return out


def plain(
    title: str, caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, drawers: Sequence[str] = (), notes=()
):
    """A table of given cells."""
    lines = [Line(tuple(cells), drawer=drawers[index] if drawers else "") for index, cells in enumerate(rows)]
    return Table(fmt.clean(title), fmt.clean(caption), tuple(columns), tuple(lines), tuple(notes), ())


def text(value: object, *, href: str = "", why: str = "") -> Cell:
    shown = fmt.clean(value, 200) if value not in ("", None) else fmt.MISSING
    return Cell(shown, fmt.clean(value, 400) if value is not None else "", href=href, why=fmt.clean(why))


def count(value: int) -> Cell:
    return Cell(str(value), value)


def quantity(reading: dict | None) -> Cell:
    """A reading as a cell."""
    if not reading or reading.get("value") is None:
        return Cell(fmt.MISSING, None, why=fmt.clean((reading or {}).get("reason", "not reported")))
    return Cell(fmt.point(reading), reading["value"], fmt.bounds(reading), low=reading.get("low"), high=reading.get("high"))
