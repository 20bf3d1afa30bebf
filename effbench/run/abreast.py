"""Work of several live workers at the same time, where it is not timed: drawing inputs, scoring answers."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PATIENCE = 30.0  # s for threads to notice that their workers have been ended


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def abreast(jobs: list[Callable[[], Iterable[Any]]], width: int, stop: Callable[[], None] = lambda: None) -> Iterator[Any]:
    """What the jobs yield, as it comes; `width` of them at a time, each in a thread of its own. Raises what a job raises.

    Where the caller stops early, or a job raises, `stop` must make the jobs that are under way end soon (it ends their workers).
    """
    if min(width, len(jobs)) < 2:
        for job in jobs:
            yield from job()
        return
    waiting, found, over = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
    for job in jobs:
        waiting.put(job)

    def drain() -> None:
        try:
            while not over.is_set():
                for value in waiting.get_nowait()():
                    found.put((value, None))
                    if over.is_set():
                        return
        except queue.Empty:
            pass
        except BaseException as error:
            found.put((None, error))
        finally:
            found.put((None, None))

    threads = [threading.Thread(target=drain, daemon=True) for _ in range(min(width, len(jobs)))]
    for thread in threads:
        thread.start()
    ended = 0
    try:
        while ended < len(threads):
            value, error = found.get()
            if error is not None:
                raise error
            if value is None:
                ended += 1
            else:
                yield value
    finally:
        over.set()
        if ended < len(threads):
            stop()
            for thread in threads:
                thread.join(PATIENCE)
