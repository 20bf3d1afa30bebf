"""Record files of several places as one: the same result whatever the order, and merging again changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..api.errors import RecordError
from ..api.record import identity
from .records import DEPTH, ENVIRONMENT, RECORDS, Loaded, confined, read, short


def files(path: Path) -> list[Path]:
    """The records files below a folder, in order of name: a run's `records.jsonl`, else every .jsonl, as results are committed."""
    return sorted(_below(path, DEPTH)) if path.is_dir() else [path]


def _below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    if any(child.name == RECORDS for child in inside):
        # The journal of a run lies beside its records.
        yield folder / RECORDS
        return
    for child in inside:
        if child.is_dir() and not child.is_symlink():
            if depth:
                yield from _below(child, depth - 1)
        elif child.suffix == ".jsonl":
            yield child


def gather(paths: Sequence[Path]) -> tuple[list[Loaded], list[str]]:
    """Each records file read on its own, so that a bad one costs only itself; and what was wrong. RecordError without any."""
    runs, problems = [], []
    for path in paths:
        found = files(path)
        if not found:
            problems.append(f"{path.name or path}: the folder holds no records")
        for file in found:
            try:
                # A link may lead elsewhere inside the folder that was named, never out of it.
                runs.append(read(confined(file, path if path.is_dir() else file.resolve().parent)))
            except RecordError as error:
                problems.append(str(error).replace(str(file), short(file))[:600])
    if not runs:
        detail, where = "; ".join(problems[:3]), ", ".join(map(str, paths))
        raise RecordError(f"no records could be read ({detail})", where=where, remedy="Name folders that `effbench run` wrote.")
    return runs, problems


def canonical(record: dict) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def order(record: dict) -> tuple[str, str]:
    return record["time"], canonical(record)


def joined(runs: Iterable[Loaded]) -> Loaded:
    """All runs as one; of two records of one measurement the later one stays, whatever the order of the runs."""
    runs = list(runs)
    records: dict[tuple, dict] = {}
    environments: dict[str, dict] = {}
    for run in runs:
        for record in run.records:
            key = identity(record)
            if key not in records or order(record) > order(records[key]):
                records[key] = record
        for name, facts in run.environments.items():
            environments[name] = min(environments.get(name, facts), facts, key=canonical)
    problems = sorted({problem for run in runs for problem in run.problems})
    notes = sorted({note for run in runs for note in run.notes})
    return Loaded(tuple(sorted(records.values(), key=order)), environments, tuple(problems), tuple(notes))


# What makes two records the same trial, whatever sources and packages made them.
TRIAL = (
    "role", "environment", "task", "data", "size", "device", "threads", "dtype", "method", "params", "knobs", "case", "seed", "budget",
)  # fmt: skip


def latest(records: Iterable[dict]) -> tuple[dict, ...]:
    """Without the records that a later run of the same trial, by changed sources or packages, has overtaken; in their order.

    Files of results keep both. A verdict, a table or a curve must not mix them. A run that skipped the trial overtakes none.
    """

    def rank(record: dict) -> tuple:
        return record["status"] != "skipped", order(record)

    records = list(records)
    last: dict[str, dict] = {}
    for record in records:
        tuned = bool(record.get("tuning", {}).get("trials"))
        trial = json.dumps([tuned, *(record.get(name) for name in TRIAL)], sort_keys=True)
        if trial not in last or rank(record) > rank(last[trial]):
            last[trial] = record
    stays = {id(record) for record in last.values()}
    return tuple(record for record in records if id(record) in stays)


def merge(paths: Sequence[Path], out: Path) -> tuple[Loaded, list[str]]:
    """Write the union of `paths` to the folder `out`, which may be one of them; returns it and what was left out.

    Records are written as they were read. Nothing is written where no record can be read.
    """
    runs, problems = gather(paths)
    loaded = joined(runs)
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(canonical(record) + "\n" for record in loaded.records)
    for name, text in ((RECORDS, lines), (ENVIRONMENT, json.dumps(loaded.environments, indent=1, sort_keys=True) + "\n")):
        part = out / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(out / name)
    return loaded, [*problems, *loaded.problems]
