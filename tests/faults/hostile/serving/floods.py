"""Too much of something."""

import os
import sys

import numpy as np

from effbench import Wrong

from .task import Answers


class Allocates(Answers):
    name = "allocates"

    def build(self, given, run):
        self.all = np.ones(1 << 30)  # 8 GiB


class Prints(Answers):
    name = "prints"

    def build(self, given, run):
        self.base = given["base"]
        for _ in range(400):
            print("x" * 9999)
            print("y" * 9999, file=sys.stderr)


class PrintsGarbage(Answers):
    name = "prints-garbage"

    def build(self, given, run):
        self.base = given["base"]
        for _ in range(50):
            os.write(1, os.urandom(20000))
            os.write(2, b"\xff\xfe\x00\x1b[2J" * 5000)
        raise ValueError("done printing")


class NoNewline(Answers):
    name = "no-newline"

    def answer(self, queries):
        sys.stdout.write("z" * 300000)
        sys.stdout.flush()
        return super().answer(queries)


class HugeReason(Answers):
    name = "huge-reason"

    def build(self, given, run):
        raise ValueError("long " * 1_000_000)


class HugeSkip(Answers):
    name = "huge-skip"

    def skip(self, given):
        return "no " * 1_000_000


class NoReason(Answers):
    name = "no-reason"

    def answer(self, queries):
        raise Wrong


class BlankSkip(Answers):
    name = "blank-skip"

    def skip(self, given):
        return "\n"


class HalfCharacter(Answers):
    name = "half-character"

    def build(self, given, run):
        raise ValueError("not text: \ud800 and \x1b]0;a title\x07 and \x00")


class HugeTally(Answers):
    name = "huge-tally"

    def answer(self, queries):
        self.run.tally(**{f"count-{i}-{'n' * 60}": 1 for i in range(200)})
        return super().answer(queries)
