"""One figure or one table for a paper: `effbench plot` and `effbench table`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..api.errors import EffbenchError, suggest
from . import format as fmt
from .drawing import Style
from .groups import Group
from .plots import Plot, curve_plots, front_plot, ratio_plot, scaling_plot
from .tables import MARKS, Table, escape, inert, table, texts

KINDS = ("front", "ratio", "scaling", "curve")
FORMS = ("latex", "markdown", "csv")
FILES = (".svg", ".pdf", ".png", ".json")
WIDTH, HEIGHT = 480, 360  # points: one column of a paper at its usual sizes
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    "×": r"$\times$", "µ": r"$\mu$", "–": "--", "◆": r"$\blacklozenge$", "◇": r"$\lozenge$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", '"': "''",
}  # fmt: skip


def choose(groups: Sequence[Group], **wanted: str) -> Group:
    """The one group that fits; `wanted` holds task, data, size, device, machine, of which "" fits all. EffbenchError otherwise."""
    found = list(groups)
    for name, value in wanted.items():
        if not value:
            continue
        known = sorted({_key(group, name) for group in found})
        found = [group for group in found if value in (_key(group, name), _key(group, name).split("(")[0])]
        if not found:
            raise EffbenchError(f"no records with {name} '{value}'", where=f"--{name}", remedy=suggest(value, known))
    if len(found) != 1:
        differ = [n for n in ("task", "data", "size", "device", "machine") if len({_key(group, n) for group in found}) > 1]
        listed = "; ".join(group.title for group in found[:4]) + ("; ..." if len(found) > 4 else "")
        remedy = "Choose with " + " ".join(f"--{name}" for name in differ or ["data"]) + "."
        raise EffbenchError(f"{len(found)} tables fit: {listed}", where="the records", remedy=remedy)
    return found[0]


def _key(group: Group, name: str) -> str:
    return group.machine if name == "machine" else str(group.key[name])


def narrowed(group: Group, case: str) -> Group:
    if not case:
        return group
    rows = tuple(row for row in group.rows if row.case == case)
    if not rows:
        raise EffbenchError(f"no rows of case '{case}'", where="--case", remedy=suggest(case, {row.case for row in group.rows}))
    return replace(group, rows=rows)


# -- tables -------------------------------------------------------------------------------------------------------------------


def table_text(group: Group, form: str, *, columns: Sequence[str] = (), fronts=None) -> str:
    """The group's table; `columns` names readings to keep, in order (labels are always kept)."""
    made = table(group, fronts=fronts)
    if columns:
        made = picked(made, columns)
    if form == "latex":
        return latex(made)
    if form == "csv":
        return "".join(
            ",".join(_csv(v) for v in line) + "\n"
            for line in [[c.name for c in made.columns], *([_raw(c) for c in x.cells] for x in made.lines)]
        )
    if form == "markdown":
        head = [
            "| " + " | ".join(escape(c.label) for c in made.columns) + " |",
            "|" + "|".join(" ---: " if c.numeric else " --- " for c in made.columns) + "|",
        ]
        return "\n".join([*head, *("| " + " | ".join(map(escape, texts(line))) + " |" for line in made.lines)]) + "\n"
    raise EffbenchError(f"unknown format '{form}'", where="--format", remedy=suggest(form, FORMS))


def picked(made: Table, names: Sequence[str]) -> Table:
    known = {column.name: index for index, column in enumerate(made.columns) if column.numeric}
    for name in names:
        if name not in known:
            raise EffbenchError(f"the table has no column '{name}'", where="--column", remedy=suggest(name, known))
    keep = [i for i, column in enumerate(made.columns) if not column.numeric] + [known[name] for name in names]
    lines = tuple(replace(line, cells=tuple(line.cells[i] for i in keep)) for line in made.lines)
    return replace(made, columns=tuple(made.columns[i] for i in keep), lines=lines)


def _raw(cell) -> Any:
    return inert(cell.raw if cell.raw is not None else "")


def _csv(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


def latex(made: Table) -> str:
    """A tabular of the booktabs package; the best of a column in bold, intervals small behind their values."""
    shape = "".join("r" if column.numeric else "l" for column in made.columns)
    out = [f"% {tex(made.title)}: {tex(made.caption)}", f"\\begin{{tabular}}{{{shape}}}", "\\toprule"]
    out += [" & ".join(tex(column.label) for column in made.columns) + r" \\", "\\midrule"]
    for line in made.lines:
        cells = []
        for index, cell in enumerate(line.cells):
            text = tex(cell.text) if cell.text != fmt.MISSING else "--"
            text = f"\\textbf{{{text}}}" if cell.best else text
            if index == 0 and line.mark:
                text = f"{tex(line.mark)} {text}"
            cells.append(text + (f" {{\\scriptsize {tex(cell.detail)}}}" if cell.detail else ""))
        out.append(" & ".join(cells) + r" \\")
    out += ["\\bottomrule", "\\end{tabular}"]
    out += [f"% {tex(note)}" for note in made.notes if any(mark in note for mark in MARKS.values())]
    return "\n".join(out) + "\n"


def tex(text: str) -> str:
    """A foreign string as LaTeX text: no character of it is a command, and none ends a line."""
    return "".join(LATEX.get(char, char if char.isascii() else _unicode(char)) for char in fmt.clean(text, 400))


def _unicode(char: str) -> str:
    return char if char.isalpha() else f"\\symbol{{{ord(char)}}}"


# -- figures ------------------------------------------------------------------------------------------------------------------


def figure(group: Group, kind: str, *, x: str = "", y: str = "") -> Plot:
    """The figure of this kind; for a front `x` and `y` name readings. EffbenchError where the records have nothing for it."""
    style = Style([row.method for row in group.rows])
    if kind == "front":
        for name, flag in ((x, "--x"), (y, "--y")):
            if name not in group.names:
                raise EffbenchError(f"no reading '{name}'", where=flag, remedy=suggest(name, group.names))
        made = front_plot(group, group.rows, (x, y), style)
    elif kind == "curve":
        made = next(iter(curve_plots(group, style)), None)
    elif kind in KINDS:
        made = (ratio_plot if kind == "ratio" else scaling_plot)(group, style)
    else:
        raise EffbenchError(f"unknown kind '{kind}'", where="--kind", remedy=suggest(kind, KINDS))
    if made is None:
        raise EffbenchError(
            f"these records have nothing for a figure of kind '{kind}'", where=group.title, remedy=f"(kinds: {', '.join(KINDS)})."
        )
    return made


def draw(plot: Plot, out: Path, *, panel: int = 1) -> Path:
    """Write one figure, of several side by side the `panel`-th, as SVG, PDF or PNG (needs plotly and kaleido) or as plotly's JSON (needs nothing)."""
    if out.suffix not in FILES:
        raise EffbenchError(f"unknown kind of file '{out.suffix}'", where=str(out), remedy=f"(known: {', '.join(FILES)}).")
    if not 1 <= panel <= len(plot.figures):
        raise EffbenchError(f"no panel {panel}", where="--panel", remedy=f"(this figure has {len(plot.figures)}).")
    chosen = plot.figures[panel - 1]
    content = {"data": chosen["data"], "layout": {**chosen["layout"], **paper_layout(chosen["layout"])}}
    if out.suffix == ".json":
        out.write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        return out
    try:
        import kaleido  # noqa: F401
        import plotly.graph_objects as go
    except ImportError as error:
        remedy = "pip install 'effbench[figures]', or write a .json and draw it elsewhere."
        raise EffbenchError(f"figures need plotly and kaleido ({error})", where=str(out), remedy=remedy) from None
    try:
        # Unknown to plotly for Python would be an error of ours, so that its checks are left on.
        go.Figure(content).write_image(str(out), width=WIDTH, height=HEIGHT)
    except (RuntimeError, ValueError, OSError) as error:
        raise EffbenchError(
            f"the figure could not be drawn ({str(error)[:200]})",
            where=str(out),
            remedy="kaleido needs Chrome: see its documentation.",
        ) from None
    return out


def paper_layout(layout: dict) -> dict:
    """Black on white, thin axes, no background: what a page in print wants."""
    axis = {
        "showline": True,
        "mirror": True,
        "linecolor": "black",
        "ticks": "outside",
        "gridcolor": "#dddddd",
        "zeroline": False,
        "automargin": True,
    }
    return {
        "xaxis": {**axis, **layout["xaxis"]}, "yaxis": {**axis, **layout["yaxis"]}, "paper_bgcolor": "white", "plot_bgcolor": "white",
        "font": {"family": "Times, serif", "size": 12, "color": "black"}, "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"},
    }  # fmt: skip
