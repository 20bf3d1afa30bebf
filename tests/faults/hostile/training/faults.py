"""An honest counter, and faults of a build that owns its loop."""

import os
import signal
import time

from effbench import Step

from .task import Counter


class Counts(Counter):
    name = "counts"


class YieldsNumbers(Counter):
    name = "yields-numbers"

    def build(self, given, run):
        yield 1


class GoesOn(Counter):
    name = "goes-on"

    def build(self, given, run):
        while True:
            self.count += 1
            yield Step()


class Clings(Counter):
    name = "clings"

    def build(self, given, run):
        while True:
            try:
                yield Step()
            except GeneratorExit:
                pass


class StopsCounting(Counter):
    name = "nan-in-the-curve"

    def build(self, given, run):
        self.count = float("nan")
        yield Step()


class EndsBadly(Counter):
    name = "nan-in-the-trace"
    end = float("inf")


class NeverYields(Counter):
    name = "never-yields"

    def build(self, given, run):
        while True:
            pass
        yield Step()


class RaisesLate(Counter):
    name = "raises-late"

    def build(self, given, run):
        yield Step()
        raise ValueError("after one step")


class Backwards(Counter):
    name = "counts-backwards"

    def build(self, given, run):
        while True:
            yield Step(steps=-1)


class KillsItsParent(Counter):
    name = "kills-its-parent"

    def build(self, given, run):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1.0)  # on a busy machine it takes a moment to die, and this build would be over before
        yield Step()


class CountsToo(Counter):
    """Honest, and the last of its group: whatever the others left behind, it finds."""

    name = "zzz-counts-too"
