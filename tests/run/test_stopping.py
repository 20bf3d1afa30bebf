"""A signal ends a run with the exit code that was asked for, wherever it arrives."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The signal arrives inside a string that is executed, as when a dataclass is made while modules are imported.
PROGRAM = """
import os, signal, sys
from effbench.run.command import stoppable
{setting}
try:
    with stoppable():
        exec("os.kill(os.getpid(), {number}); [i for i in range(10 ** 6)]")
except KeyboardInterrupt:
    sys.exit(3)
sys.exit(4)
"""
PLAIN = "signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)); stoppable = __import__('contextlib').nullcontext"


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """ended(number, setting) -> the exit code of the program, run as a module, as `python -m effbench` is."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))

    def go(number: int, setting: str = "signal.signal(signal.SIGINT, signal.default_int_handler)") -> int:
        (tmp_path / "program.py").write_text(PROGRAM.format(number=int(number), setting=setting))
        return subprocess.run([sys.executable, "-m", "program"], cwd=tmp_path, capture_output=True, timeout=60).returncode

    return go


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_code_is_the_one_that_was_asked_for(ended, number):
    assert ended(number) == 3


def test_a_plain_interrupt_would_end_as_killed(ended):
    """Why `stoppable` has a class of its own. Where this begins to fail, CPython has mended it, and the class can go."""
    assert ended(signal.SIGTERM, PLAIN) == -signal.SIGINT


def test_an_interrupt_that_the_shell_ignores_stays_ignored(ended):
    assert ended(signal.SIGINT, "signal.signal(signal.SIGINT, signal.SIG_IGN)") == 4
