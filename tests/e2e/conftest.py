"""A person's view: the command line as a process of its own, with a technique folder and a cache of the test's own."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOYS = ROOT / "tests" / "api" / "toys"

# A shell that runs the tests in the background leaves interrupts ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Shell:
    """Runs `effbench ...`; everything that it starts carries a mark in its environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        (folder / "tmp").mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "EFFBENCH"))}
        self.environment |= {
            "PYTHONPATH": str(ROOT), "EFFBENCH_IMPLEMENTATIONS": str(TOYS), "EFFBENCH_DATA": str(folder / "cache" / "data"),
            "E2E_MARK": self.mark, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
        }  # fmt: skip

    def start(self, *arguments, preexec=None, **environment) -> subprocess.Popen:
        env = {**self.environment, **{name: str(value) for name, value in environment.items()}}
        return subprocess.Popen(
            [sys.executable, "-m", "effbench", *map(str, arguments)], cwd=self.folder, env=env, text=True,
            preexec_fn=preexec,  # noqa: PLW1509 - this process has no threads that matter
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, *arguments, timeout=90, **options) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @staticmethod
    def records(folder: Path) -> list[dict]:
        """The whole lines of a run folder's records; a torn last one is no record."""
        path = folder / "records.jsonl"
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []

    def left_over(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                    if self.mark.encode() in environment and "\nState:\tZ" not in (entry / "status").read_text():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.left_over():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def effbench(tmp_path):
    return Shell(tmp_path)
