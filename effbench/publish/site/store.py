"""Writes the files of a site: each whole or not at all, and what an earlier build left is taken away."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePosixPath

from ...api.errors import EffbenchError
from ..page import data
from ..report import _write
from ..tables import Table, inert

MARKER = "effbench-site.txt"


class Store:
    """A folder that holds this site and nothing else. EffbenchError where it holds something that no build made."""

    def __init__(self, out: Path):
        self.out = out
        self.sizes: dict[str, int] = {}
        self._old: set[str] = set()
        if out.is_symlink() or (out.exists() and not out.is_dir()):
            raise EffbenchError("not a folder", where=str(out), remedy="Name a new folder for the site.")
        marker = out / MARKER
        if marker.is_file():
            self._old = {line for line in marker.read_text("utf-8").splitlines() if self._inside(line)}
        elif out.exists() and any(out.iterdir()):
            remedy = "Name a new or empty folder: files of an earlier site are replaced, others never."
            raise EffbenchError("the folder holds files that no site build made", where=str(out), remedy=remedy)
        out.mkdir(parents=True, exist_ok=True)
        # Named before the first page, so that a build that was cut off can be repeated.
        _write(marker, self._listing(self._old))

    def _inside(self, name: str) -> bool:
        path = PurePosixPath(name)
        return bool(name) and not path.is_absolute() and ".." not in path.parts

    def _listing(self, names) -> bytes:
        return ("\n".join(sorted(names)) + "\n").encode()

    def write(self, name: str, content: str | bytes) -> None:
        if not self._inside(name):
            raise ValueError(f"{name} lies outside the site")
        content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        _write(self.out / name, content)
        self.sizes[name] = len(content)

    def finish(self) -> None:
        """Remove what the earlier build wrote and this one did not."""
        for name in sorted(self._old - set(self.sizes)):
            path = self.out / name
            # A link put there since would lead elsewhere.
            if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(self.out.resolve()):
                path.unlink()
        _write(self.out / MARKER, self._listing(self.sizes))


class Shards:
    """Records for the drawer, in .js files of one task and method each: pages load them when a row is opened."""

    def __init__(self):
        self.content: dict[str, list[dict]] = {}

    def add(self, name: str, record: dict) -> int:
        """The record's place in its shard."""
        self.content.setdefault(name, []).append(record)
        return len(self.content[name]) - 1

    def write(self, store: Store) -> None:
        for name, records in sorted(self.content.items()):
            # What all records of a shard have in common stands in it once.
            first = records[0]
            common = {field: first[field] for field in first if all(field in r and r[field] == first[field] for r in records)}
            rest = [{field: value for field, value in record.items() if field not in common} for record in records]
            store.write(f"records/{name}.js", f"effbenchShards[{json.dumps(name)}]={data({'common': common, 'records': rest})};\n")


def write_table(store: Store, name: str, table: Table) -> None:
    """The table as CSV and JSON, SI values with their intervals; formulas of spreadsheets are made text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head: list[str] = []
    for column in table.columns:
        head += [column.name, f"{column.name}.low", f"{column.name}.high"] if column.numeric else [column.name]
    rows = []
    for line in table.lines:
        row: list = []
        for column, cell in zip(table.columns, line.cells):
            raw = cell.raw if cell.raw is not None or column.numeric else cell.text
            row += [raw, cell.low, cell.high] if column.numeric else [raw]
        rows.append(row)
    writer.writerow([inert(text) for text in head])
    writer.writerows([inert(value) for value in row] for row in rows)
    store.write(f"{name}.csv", stream.getvalue())
    content = {"title": table.title, "caption": table.caption, "columns": head, "rows": rows, "notes": table.notes}
    store.write(f"{name}.json", json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":")) + "\n")
