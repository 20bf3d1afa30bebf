"""Known seconds: asleep, busy for a wall time, busy for a CPU time and three times that."""

import time

from .task import Load

SECONDS = 0.001


class Sleeps(Load):
    name = "sleeps"

    def answer(self, batch):
        time.sleep(SECONDS)
        return {"answer": 2 * batch}


class Busy(Load):
    name = "busy"

    def answer(self, batch):
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            pass
        return {"answer": 2 * batch}


class Burns(Load):
    """As long as it takes to have used the CPU for SECONDS: on a loaded host longer by the clock on the wall."""

    name = "burns"
    factor = 1

    def answer(self, batch):
        end = time.process_time() + self.factor * SECONDS
        while time.process_time() < end:
            pass
        return {"answer": 2 * batch}


class Burns3(Burns):
    name = "burns-3"
    factor = 3


class BuildsFor(Load):
    """0.15 s of build, 0.05 s of them in a part of their own."""

    name = "builds"

    def build(self, given, run):
        time.sleep(0.1)
        with run.part("train"):
            time.sleep(0.05)

    def answer(self, batch):
        return {"answer": 2 * batch}
