"""What `effbench check` asks inside a worker: questions to a technique that need its live objects.

Each probe takes the Worker and returns {"outcome": "ok" | "FAIL" | "n.a.", "detail": text}. They run after the timed part and
may rebuild the method; nothing here is ever part of a record.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from .probe_answers import cached, keeping, seeds
from .probe_costs import build_flops, releasing, serve_flops
from .probing import answer
from .session import Session

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_touched: list[str] = []


def watch(worker: Any) -> dict:
    """From now on remember every path that Python code of this process creates, writes, moves or removes."""

    def hook(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], (str, bytes)):
            mode, flags = args[1], args[2]
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (mode is None and isinstance(flags, int) and flags & WRITING):
                _touched.append(os.fsdecode(args[0]))
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"):
            _touched.extend(os.fsdecode(arg) for arg in args[:2] if isinstance(arg, (str, bytes)))

    sys.addaudithook(hook)
    return answer("ok")


def clean(worker: Any, allowed: list[str]) -> dict:
    """No thread left behind, no file touched outside HOME and the engine's own folders."""
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if left:
        return answer("FAIL", f"leaves threads running: {', '.join(left)}")
    allowed = [os.path.realpath(path) for path in (*allowed, os.environ["HOME"])]
    strangers = []
    for path in _touched:
        place = os.path.realpath(path)
        if not place.startswith(("/dev/", "/proc/")) and not any(os.path.commonpath([place, one]) == one for one in allowed):
            strangers.append(path)
    if strangers:
        return answer("FAIL", f"writes outside its HOME: {', '.join(dict.fromkeys(strangers))}")
    return answer("ok")


def constructor(worker: Any) -> dict:
    """An instance holds exactly the settings it was given."""
    given = vars(worker.session.make())
    expected = worker.params
    extra = sorted(set(given) - set(expected))
    if extra:
        return answer("FAIL", f"the constructor does more than store its settings: it sets {', '.join(extra)}")
    changed = [name for name, value in expected.items() if given.get(name, value) != value or name not in given]
    if changed:
        return answer("FAIL", f"the constructor does not store {', '.join(changed)} as given")
    return answer("ok")


def literals(worker: Any, attributes: dict[str, str], settings: dict[str, str]) -> dict:
    """What the registry read from the text (as `repr`) is what the class holds after its import."""
    cls = type(worker.session.make())
    live = {name: repr(setting) for name, setting in cls.settings().items()}
    wrong = [
        f"{name} is {getattr(cls, name)!r}, read as {text}" for name, text in attributes.items() if repr(getattr(cls, name)) != text
    ]
    wrong += [
        f"setting '{name}' differs from its text" for name in sorted({*live, *settings}) if live.get(name) != settings.get(name)
    ]
    return answer("FAIL", "; ".join(wrong)[:300]) if wrong else answer("ok")


def skipping(worker: Any) -> dict:
    """`skip` answers with text: also for number formats that the method may not know."""
    session, method = worker.session, worker.session.make()
    reasons = []
    for dtype in (session.dtype, "float64", "bfloat16", "float16"):
        method.run = session._run(session.seed)
        method.run.dtype, method.run.budget = dtype, session.method.run.budget
        reason = method.skip(session.given)
        if not isinstance(reason, str):
            return answer("FAIL", f"skip returned {reason!r} in {dtype}; it returns a reason, or ''")
        if reason and len(reason.split()) < 2:
            return answer("FAIL", f"skip returned {reason!r} in {dtype}, which is no reason")
        reasons += [f"{dtype}: {reason}"] if reason else []
    return answer("ok", "; ".join(reasons)[:160] if reasons else "it skips nothing here")


def bad_input(worker: Any, cases: list[str]) -> dict:
    """Inputs that the task names as bad (`Task.bad_batches`) are refused with a message."""
    session: Session = worker.session
    count = 0
    for case in cases:
        for label, batch in session.task.bad_batches(session.case(case), session.hidden, session.method.run).items():
            try:
                session.task.call(session.method, batch, session.case(case))
            except Exception as error:
                if str(error).strip():
                    count += 1
                    continue
                return answer("FAIL", f"{label}: refused without a message ({type(error).__name__})")
            return answer("FAIL", f"{label}: answered instead of refused")
    return answer("ok", f"{count} bad inputs refused") if count else answer("n.a.", "the task names no bad inputs (bad_batches)")


PROBES = {
    probe.__name__: probe
    for probe in (
        watch, clean, constructor, literals, skipping, seeds, cached, build_flops, serve_flops, keeping, releasing, bad_input
    )
}  # fmt: skip
