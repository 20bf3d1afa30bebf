"""Leaves processes behind."""

import os
import subprocess
import sys

from .task import Answers, beat_for_ever


def daemon(name: str) -> None:
    """The classic double fork into a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            beat_for_ever(name)
        os._exit(0)
    os.wait()


class Daemon(Answers):
    name = "daemon"

    def build(self, given, run):
        self.base = given["base"]
        daemon(self.name)


class DaemonThenDies(Answers):
    name = "daemon-then-dies"

    def build(self, given, run):
        daemon(self.name)
        os._exit(3)


class OwnSession(Answers):
    name = "own-session"

    def build(self, given, run):
        self.base = given["base"]
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleep, start_new_session=True)


class Chain(Answers):
    name = "chain"

    def build(self, given, run):
        """Each link in a session of its own: ending one frees the next."""
        self.base = given["base"]
        worker = os.getpid()
        for _ in range(4):
            if os.fork():
                break
            os.setsid()
        if os.getpid() != worker:
            beat_for_ever(self.name)


class Twins(Answers):
    name = "twins"

    def build(self, given, run):
        """Both halves of the fork return into the engine."""
        self.base = given["base"]
        os.fork()
