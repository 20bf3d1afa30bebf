"""What a person sees while a suite runs: a live line on a terminal, plain lines elsewhere, nothing with --quiet. On stderr."""

from __future__ import annotations

import sys
import time

from ..plan.trial import Trial

SILENCE = 30.0  # s without a line after which a log that is no terminal is told what is being done


class Progress:
    def __init__(self, total: int, *, quiet: bool = False, stream=None):
        self.total, self.quiet = total, quiet
        self.stream = stream or sys.stderr
        self.live = not quiet and self.stream.isatty()
        self.seen: set[str] = set()
        self.before = 0  # trials that were finished when this run started
        self.counts: dict[str, int] = {}
        self.start = time.monotonic()
        self._width = 0
        self._said = self.start

    def known(self, trial: Trial) -> None:
        self.seen.add(trial.key)
        self.before += 1

    def phase(self, trial: Trial, text: str) -> None:
        self._status(f"{self._head()} {trial.task}/{trial.label}: {text}")

    def detail(self, trial: Trial, text: str) -> None:
        self._status(f"{self._head()} {trial.task}/{trial.label}: {text}")

    def round(self, group, number: int, rounds: int) -> None:
        self._status(f"{self._head()} {group.task.name} on {group.data}: round {number} of {rounds}{self._left()}")

    def finished(self, trial: Trial, record: dict) -> None:
        self.counts[record["status"]] = self.counts.get(record["status"], 0) + 1
        first = trial.key not in self.seen
        self.seen.add(trial.key)
        if record["status"] != "ok":
            case = f" {record['case']}" if record["case"] else ""
            self.line(f"{self._head()} {trial.task}/{trial.label}{case}: {record['status']}: {record['reason']}")
        elif first:
            self.line(f"{self._head()} {trial.task}/{trial.label} on {trial.data.name}: {self._headline(record)}{self._left()}")

    def line(self, text: str) -> None:
        if self.quiet:
            return
        self._clear()
        self._said = time.monotonic()
        print(text, file=self.stream, flush=True)

    def close(self) -> None:
        self._clear()

    def _headline(self, record: dict) -> str:
        from ..publish.format import number

        names = ["build.time", "serve.latency", *sorted(name for name in record["readings"] if name.startswith("quality."))][:4]
        parts = []
        for name in names:
            value = record["readings"].get(name, {})
            if value.get("value") is not None:
                parts.append(f"{name.removeprefix('quality.')} {number(value['value'], value['unit'])}")
        return ", ".join(parts) or "ok"

    def _head(self) -> str:
        return f"[{len(self.seen):>{len(str(self.total))}}/{self.total}]"

    def _left(self) -> str:
        done = len(self.seen) - self.before
        left = self.total - len(self.seen)
        if done < 2 or left <= 0:
            return ""
        seconds = (time.monotonic() - self.start) / done * left
        return f"  (about {seconds / 60:.0f} min left)" if seconds > 90 else f"  (about {seconds:.0f} s left)"

    def _status(self, text: str) -> None:
        """On a terminal the live line; elsewhere a line where nothing has been said for a while."""
        if not self.live:
            if time.monotonic() - self._said > SILENCE:
                self.line(text)
            return
        import shutil

        text = text[: shutil.get_terminal_size().columns - 1]
        self.stream.write("\r" + text.ljust(self._width))
        self._width = len(text)
        self.stream.flush()

    def _clear(self) -> None:
        if self.live and self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0
