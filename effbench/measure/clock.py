"""The clock of a build: it stands still while the engine evaluates, writes a curve row or looks at the budget."""

from __future__ import annotations

import time


class BuildClock:
    """Wall seconds (and this process's CPU seconds, all threads) between `start` and `stop`, summed. Both may be repeated."""

    def __init__(self):
        self._wall = self._cpu = 0.0
        self._since: tuple[float, float] | None = None

    def start(self) -> None:
        if self._since is None:
            self._since = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        if self._since is not None:
            self._wall += time.perf_counter() - self._since[0]
            self._cpu += time.process_time() - self._since[1]
            self._since = None

    def elapsed(self) -> float:
        return self._wall + (time.perf_counter() - self._since[0] if self._since else 0.0)

    def cpu(self) -> float:
        return self._cpu + (time.process_time() - self._since[1] if self._since else 0.0)
