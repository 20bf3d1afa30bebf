"""Record folders, read strictly: nothing from a file is evaluated, every read is bounded, paths stay inside their folder.

A run folder holds `records.jsonl` (one record a line), `environment.json` (environment key -> facts) and `suite.toml`.
A damaged line costs that line only and is named; a record of a newer schema stops the reading.
"""

from __future__ import annotations

import json
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..api.errors import RecordError
from ..api.record import MAX_BYTES, SCHEMA, identity, loads

RECORDS, ENVIRONMENT, SUITE = "records.jsonl", "environment.json", "suite.toml"
LINE_LIMIT = 4 * MAX_BYTES  # what `loads` still looks at
FILE_LIMIT = 4 * 2**20  # of environment.json and suite.toml
PROBLEM_LIMIT = 50  # named per file; further ones are counted
DEPTH = 4  # levels below a given folder in which run folders are looked for
SKIP_CHUNK = 2**20


@dataclass(frozen=True)
class Loaded:
    """What one or several run folders hold.

    `problems` are damages that cost something (a skipped line, a replaced duplicate); `notes` are expected leftovers, as the
    torn last line of an interrupted run. `suite` is the parsed suite file of the first folder that has one, else {}.
    """

    records: tuple[dict, ...]
    environments: dict[str, dict]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    suite: dict[str, Any] = field(default_factory=dict)


def read(paths: str | Path | Iterable[str | Path]) -> Loaded:
    """Records of a run folder, a folder of run folders, a records file, or several of these; later files win.

    RecordError where there is nothing to read, a path leaves its folder, or a record has a newer schema.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not paths:
        raise RecordError("no path of records was given", remedy="Name a run folder or a records.jsonl.")
    records: dict[tuple, dict] = {}
    environments: dict[str, dict] = {}
    problems, notes, suite = Tally(), [], {}
    for path in paths:
        for file in find(Path(path)):
            folder = file.parent
            for number, record in lines(file, problems, notes):
                key = identity(record)
                if key in records:
                    # Taken out first, so that the order is that of the survivors.
                    del records[key]
                    label = f"{record['task']}/{record['method']} seed {record['seed']}"
                    problems.add(str(file), f"{short(file)}:{number}: a second record of {label}: the last one is kept")
                records[key] = record
            for name, facts in environment(folder, problems, notes).items():
                if environments.setdefault(name, facts) != facts:
                    problems.add(str(folder), f"{short(folder / ENVIRONMENT)}: environment {name} differs from an earlier folder's")
            suite = suite or suite_of(folder, problems)
    if not records:
        where = ", ".join(map(str, paths))
        detail = f" ({problems.lines()[0]})" if problems.lines() else ""
        raise RecordError(f"no records{detail}", where=where, remedy="Did the run finish a trial? See its journal.")
    for key in sorted({record["environment"] for record in records.values()} - set(environments)):
        problems.add("", f"environment {key} is described in no {ENVIRONMENT}")
    return Loaded(tuple(records.values()), environments, tuple(problems.lines()), tuple(notes), suite)


class Tally:
    """Problems as sentences, at most PROBLEM_LIMIT a file: a file of garbage must not fill the memory with messages."""

    def __init__(self):
        self._named: list[str] = []
        self._counts: dict[str, int] = {}

    def add(self, source: str, sentence: str) -> None:
        self._counts[source] = self._counts.get(source, 0) + 1
        if self._counts[source] <= PROBLEM_LIMIT:
            self._named.append(sentence)

    def lines(self) -> list[str]:
        more = [(source, count - PROBLEM_LIMIT) for source, count in self._counts.items() if count > PROBLEM_LIMIT]
        return self._named + [f"{short(Path(source))}: {count} further problems" for source, count in more]


def short(file: Path) -> str:
    """A file as problems name it: they are published with the records, and where a folder lay is nobody's business."""
    return f"{file.parent.name}/{file.name}" if file.parent.name else file.name


def find(path: Path) -> list[Path]:
    """The records files that a path stands for: itself, the folder's, or those of the run folders below it, in order of name."""
    if path.is_dir():
        own = path / RECORDS
        files = [own] if own.is_symlink() or own.exists() else sorted(_below(path, DEPTH))
        if not files:
            raise RecordError(f"the folder holds no {RECORDS}", where=str(path), remedy="Name a folder that a run wrote.")
        return [confined(file, path) for file in files]
    if not path.exists():
        raise RecordError("no such file or folder", where=str(path), remedy="Name a run folder or a records.jsonl.")
    return [confined(path, path.resolve().parent)]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and depth:
            if (child / RECORDS).is_symlink() or (child / RECORDS).exists():
                yield child / RECORDS
            else:
                yield from _below(child, depth - 1)


def confined(file: Path, folder: Path) -> Path:
    """The file, if it is a regular one inside the folder also after its links are followed; RecordError otherwise."""
    try:
        target = file.resolve(strict=True)
        regular = stat.S_ISREG(target.stat().st_mode)
    except (OSError, RuntimeError) as error:
        raise RecordError(f"cannot be read ({error})", where=str(file), remedy="Restore the file.") from None
    if not target.is_relative_to(folder.resolve()):
        raise RecordError("the link leads out of its folder", where=str(file), remedy="Put a copy of the file there instead.")
    if not regular:
        raise RecordError("not a regular file", where=str(file), remedy="Name a run folder or a records.jsonl.")
    return file


def lines(file: Path, problems: Tally, notes: list[str]) -> Iterator[tuple[int, dict]]:
    """(line number, record) of every sound line; the file is streamed, and no more than LINE_LIMIT of a line is held."""
    try:
        stream = file.open("rb")
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror})", where=str(file), remedy="Check its permissions.") from None
    with stream:
        number = 0
        while line := stream.readline(LINE_LIMIT + 1):
            number += 1
            where = f"{short(file)}:{number}"
            whole = line.endswith(b"\n")
            if not whole and len(line) > LINE_LIMIT:
                length = len(line)
                while not whole and (chunk := stream.readline(SKIP_CHUNK)):
                    length, whole = length + len(chunk), chunk.endswith(b"\n")
                problems.add(str(file), f"{where}: a line of {length} bytes exceeds the limit of {MAX_BYTES}; skipped")
            elif line.strip(b" \t\r\n"):
                try:
                    yield number, loads(line, where)
                except (RecordError, OverflowError) as error:  # OverflowError: an integer beyond the range of floats
                    refuse_newer(line, where)
                    if whole:
                        problems.add(str(file), f"{where}: {getattr(error, 'what', error)}; skipped")
                    else:
                        notes.append(f"{where}: the last line is torn (an interrupted run); left out")


def refuse_newer(line: bytes, where: str) -> None:
    try:
        schema = json.loads(line).get("schema")
    except (ValueError, RecursionError, AttributeError):
        return
    if isinstance(schema, int) and schema > SCHEMA:
        remedy = f"This effbench reads schema {SCHEMA}: upgrade effbench to read newer records."
        raise RecordError(f"schema {schema} is newer than {SCHEMA}", where=where, remedy=remedy)


def environment(folder: Path, problems: Tally, notes: list[str]) -> dict[str, dict]:
    content = _small(folder, ENVIRONMENT, problems)
    if content is None:
        return {}
    where = short(folder / ENVIRONMENT)
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        problems.add(where, f"{where}: not valid JSON ({error}); left out")
        return {}
    if not isinstance(parsed, dict):
        problems.add(where, f"{where}: an object of environments was expected; left out")
        return {}
    sound = {key: facts for key, facts in parsed.items() if isinstance(facts, dict)}
    for key in sorted(parsed.keys() - sound.keys()):
        problems.add(where, f"{where}: environment {key} is not an object; left out")
    return sound


def suite_of(folder: Path, problems: Tally) -> dict[str, Any]:
    content = _small(folder, SUITE, problems)
    if content is None:
        return {}
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        problems.add(str(folder), f"{short(folder / SUITE)}: not valid TOML ({error}); left out")
        return {}


def _small(folder: Path, name: str, problems: Tally) -> bytes | None:
    """The content of a file beside the records; None where it is missing or too large."""
    file = folder / name
    if not file.exists() and not file.is_symlink():
        return None
    with confined(file, folder).open("rb") as stream:
        content = stream.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        problems.add(str(file), f"{short(file)}: exceeds the limit of {FILE_LIMIT} bytes; left out")
        return None
    return content
