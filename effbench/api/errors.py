"""What can go wrong, as a tree.

EffbenchError            a message for a person; the command line prints it without a traceback and exits with 2
├── SuiteError           a suite file, or a selection on the command line, asks for something that does not exist
├── RegistryError        a technique's file cannot be read, or two of them claim one name
├── DataError            a data set is missing, damaged or not what its recipe says
├── RunError             a run folder is locked, foreign, full or cannot be written
├── DeviceError          a device is asked for that this machine does not have
└── RecordError          a record is not of a schema that this version reads
Wrong                    raised by `Task.score`: the answers break the contract; the trial gets the status "wrong"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EffbenchError(Exception):
    """Says what is wrong (with the value), where (file and key), and what to do."""

    def __init__(self, what: str, *, where: str = "", remedy: str = ""):
        self.what, self.where, self.remedy = what, where, remedy
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head} {remedy}".rstrip())


class SuiteError(EffbenchError):
    pass


class RegistryError(EffbenchError):
    pass


class DataError(EffbenchError):
    pass


class RunError(EffbenchError):
    pass


class DeviceError(EffbenchError):
    pass


class RecordError(EffbenchError):
    pass


class Wrong(Exception):
    """The method's answers break the task's contract (shape, dtype, duplicates, out of range)."""


def suggest(name: str, known: Iterable[str]) -> str:
    """A remedy that names what exists, nearest first: "(known: a, b). Did you mean 'a'?"."""
    known = sorted(known)
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    text = f"(known: {shown or 'none'})."
    return f"{text} Did you mean '{near[0]}'?" if near else text
