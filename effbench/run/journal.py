"""The run folder: append-only records, resume, one run at a time.

records.jsonl      one record a line, flushed to disk before the next trial starts
events.jsonl       what was built and can be loaded again; never published
environment.json   environment key -> fingerprint
suite.toml         the suite as it was read
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..api import record as records
from ..api.errors import RecordError, RunError

PROBE = 1 << 18  # bytes that must still go onto a disk which is not full


def full(folder: Path) -> str:
    """What keeps this process from writing a small file there, or ""."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(probe, "wb") as file:
            file.write(bytes(PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return ""


class Journal:
    def __init__(self, folder: Path):
        self.folder = folder
        self.done: dict[tuple, dict] = {}
        self.built: dict[str, dict] = {}
        self.notes: list[str] = []
        self._lock = None

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, *, suite: str, text: str, fresh: bool = False) -> Iterator[Journal]:
        """Lock the folder, read what is finished, cut off a torn last line. `fresh` moves earlier records aside."""
        journal = cls(Path(folder).absolute())  # workers live in another folder
        try:
            journal.folder.mkdir(parents=True, exist_ok=True)
            journal._lock = os.open(journal.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(
                f"cannot write ({error.strerror or error})", where=str(folder), remedy="Choose another folder with --out."
            ) from None
        try:
            try:
                fcntl.flock(journal._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    "another run is writing here", where=str(folder), remedy="Wait for it, or choose another --out."
                ) from None
            if fresh:
                journal._set_aside()
            journal._same_suite(suite)
            journal._recover("records.jsonl", journal._take_record)
            journal._recover("events.jsonl", journal._take_event)
            journal.write_text("suite.toml", text)
            yield journal
        finally:
            os.close(journal._lock)

    def _same_suite(self, suite: str) -> None:
        path = self.folder / "records.jsonl"
        try:
            with open(path, "rb") as file:
                first = json.loads(file.readline(1 << 16) or b"{}")
        except (OSError, ValueError):
            return
        if first.get("suite") not in (None, suite):
            raise RunError(
                f"holds records of suite '{first['suite']}', not '{suite}'",
                where=str(self.folder),
                remedy="Choose another --out, or add --fresh.",
            )

    def _set_aside(self) -> None:
        """Records are never deleted: an earlier run in this folder keeps its files under a number."""
        if not (self.folder / "records.jsonl").exists():
            return
        number = 1
        while (self.folder / f"earlier-{number}").exists():
            number += 1
        aside = self.folder / f"earlier-{number}"
        aside.mkdir()
        for name in ("records.jsonl", "events.jsonl", "environment.json", "suite.toml", "report.html"):
            if (self.folder / name).exists():
                os.replace(self.folder / name, aside / name)
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        self.notes.append(f"earlier records are in {aside}")

    def _recover(self, name: str, take) -> None:
        path = self.folder / name
        if not path.exists():
            return
        good = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                take(line, f"{path}: line {number}")
                good += len(line)
        if good < path.stat().st_size:
            os.truncate(path, good)
            self.notes.append(f"{name}: a torn last line was cut off; its trial runs again")

    def _take_record(self, line: bytes, where: str) -> None:
        record = records.loads(line, where)
        self.done[records.identity(record)] = record

    def _take_event(self, line: bytes, where: str) -> None:
        try:
            event = json.loads(line)
            self.built[event["key"]] = event
        except (ValueError, KeyError, TypeError):
            raise RecordError(
                "not a valid event", where=where, remedy="Remove events.jsonl: built methods are then built again."
            ) from None

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, record: dict) -> None:
        problems = records.check(record)
        if problems:
            raise RecordError(
                "; ".join(problems[:3]), where=f"{record.get('task')}/{record.get('method')}", remedy="This is a bug in effbench."
            )
        identity = records.identity(record)
        if identity in self.done:
            return
        self._append("records.jsonl", records.dumps(record))
        self.done[identity] = record

    def write_event(self, event: dict) -> None:
        self._append("events.jsonl", json.dumps(event, default=float))
        self.built[event["key"]] = event

    def _append(self, name: str, line: str) -> None:
        """All of the line reaches the disk, or none of it stays."""
        path = self.folder / name
        data = line.encode() + b"\n"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(
                f"cannot write ({error.strerror})", where=str(path), remedy="Mend it and start again: finished trials are kept."
            ) from None
        size = os.fstat(fd).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            os.fsync(fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
            raise RunError(
                f"cannot write ({error.strerror}); {len(self.done)} finished records are safe", where=str(path),
                remedy="Free space and start the same command again: it resumes.",
            ) from None  # fmt: skip
        finally:
            os.close(fd)

    def write_log(self, key: str, text: str) -> None:
        """The end of what a failed trial printed. Best effort: a full disk must not hide the failure itself."""
        with contextlib.suppress(OSError):
            (self.folder / "logs").mkdir(exist_ok=True)
            (self.folder / "logs" / f"{key}.txt").write_text(text, encoding="utf-8")

    def write_text(self, name: str, text: str) -> None:
        path = self.folder / name
        partial = path.with_name(f".{name}.part")
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        except OSError as error:
            raise RunError(
                f"cannot write ({error.strerror})", where=str(path), remedy="Free space or choose another --out."
            ) from None

    def add_environment(self, key: str, details: dict) -> None:
        path = self.folder / "environment.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if not isinstance(known, dict):
                raise ValueError("not a table")
        except ValueError as error:
            raise RecordError(f"not valid JSON ({error})", where=str(path), remedy="Restore the file, or add --fresh.") from None
        if known.get(key) != details:
            known[key] = details
            self.write_text("environment.json", json.dumps(known, indent=1, sort_keys=True) + "\n")

    def tidy(self) -> None:
        """Remove the folder of saved methods where nothing is left in it."""
        with contextlib.suppress(OSError):
            (self.folder / "artifacts").rmdir()

    def strip(self) -> None:
        """Leave only records, environment and suite."""
        for path in self.folder.iterdir():
            if path.name in ("records.jsonl", "environment.json", "suite.toml") or path.name.startswith("earlier-"):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
