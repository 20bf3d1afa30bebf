"""The body of a table as HTML. By hand and not by a template: a site has hundreds of thousands of cells, and this is its largest cost.

Every string goes through `quoted`, as the templates' autoescape and finaliser do it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from markupsafe import Markup, escape

from . import format as fmt
from .tables import Cell, Column, Line, Table

SHORT_TEXT = 25  # characters that never break over lines
WORDS = ("status", "sources", "verdict")  # columns whose words are coloured
USUAL = ("ok", "current")  # and those that are not


def body(table: Table, *, ranked: bool = False, front: bool = False) -> Markup:
    """The lines of a table between <tbody> and </tbody>; `ranked` adds the column of ranks, `front` the mark of the Pareto front."""
    return Markup("".join(_line(line, table.columns, ranked, front) for line in table.lines))


@functools.lru_cache(maxsize=65536)
def quoted(text: str) -> str:
    """A foreign string as printable text that may stand between tags and inside double quotes."""
    return str(escape(fmt.clean(text, 4000)))


def _line(line: Line, columns: Sequence[Column], ranked: bool, front: bool) -> str:
    head = '<tr class="baseline"' if line.baseline else "<tr"
    out = [head, _attribute("d", line.drawer) if line.drawer else "", ">"]
    for index, (column, cell) in enumerate(zip(columns, line.cells)):
        if index == 0:
            out.append(_first(cell, column, line.mark, ranked, front))
        else:
            out.append(_number(cell, ranked) if column.numeric else _text(cell, column))
    return "".join([*out, "</tr>\n"])


def _attribute(name: str, value: object) -> str:
    return f' data-{name}="{quoted(value) if isinstance(value, str) else value}"'


def _linked(cell: Cell) -> str:
    return f'<a href="{quoted(cell.href)}">{quoted(cell.text)}</a>' if cell.href else quoted(cell.text)


def _short(cell: Cell) -> str:
    return ' class="short"' if len(cell.text) < SHORT_TEXT else ""


def _first(cell: Cell, column: Column, mark: str, ranked: bool, front: bool) -> str:
    value = _attribute("v", cell.raw) if cell.raw is not None else ""
    word = _attribute("word", cell.text) if column.name == "verdict" else ""
    shown = f'<span class="mark">{quoted(mark)}</span>' if front else ""
    rank = '<td class="number rank">-</td>' if ranked else ""
    return f'<th scope="row"{_short(cell)}{value}{word}>{shown}{_linked(cell)}</th>{rank}'


def _number(cell: Cell, ranked: bool) -> str:
    named = (("v", cell.raw), ("l", cell.low), ("h", cell.high))
    values = "".join(_attribute(name, value) for name, value in named if value is not None)
    rank = _attribute("r", cell.rank) if cell.rank else ""
    why = f' title="{quoted(cell.why)}"' if cell.why and (cell.text == fmt.MISSING or not ranked) else ""
    detail = f"<small>{quoted(cell.detail)}</small>" if cell.detail else ""
    return f'<td class="number{" best" if cell.best else ""}"{values}{rank}{why}>{quoted(cell.text)}{detail}</td>'


def _text(cell: Cell, column: Column) -> str:
    word = _attribute("word", cell.text) if column.name in WORDS and cell.text not in USUAL else ""
    why = f' title="{quoted(cell.why)}"' if cell.why else ""
    detail = f"<small>{quoted(cell.detail)}</small>" if cell.detail else ""
    return f"<td{_short(cell)}{word}{why}>{_linked(cell)}{detail}</td>"
