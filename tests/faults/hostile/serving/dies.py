"""Ends its process."""

import ctypes
import os
import signal
import sys

from .task import Answers


class Segfault(Answers):
    name = "segfault"

    def build(self, given, run):
        ctypes.string_at(0)


class SegfaultInServe(Answers):
    name = "segfault-in-serve"

    def answer(self, queries):
        ctypes.string_at(0)


class Exits(Answers):
    name = "exits"

    def build(self, given, run):
        os._exit(0)


class ExitsPolitely(Answers):
    name = "exits-politely"

    def build(self, given, run):
        sys.exit(0)


class Aborts(Answers):
    name = "aborts"

    def answer(self, queries):
        os.abort()


class KillsItself(Answers):
    name = "kills-itself"

    def build(self, given, run):
        os.kill(os.getpid(), signal.SIGKILL)


class KillsItsGroup(Answers):
    name = "kills-its-group"

    def answer(self, queries):
        os.killpg(0, signal.SIGTERM)


class DiesInOneCase(Answers):
    """Of 12 queries, once it has been asked 16."""

    name = "dies-in-one-case"
    armed = False

    def answer(self, queries):
        self.armed |= len(queries) == 16
        if self.armed and len(queries) == 12:
            os._exit(5)
        return super().answer(queries)
