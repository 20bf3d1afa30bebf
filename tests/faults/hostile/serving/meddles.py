"""Reaches for what is not its own."""

import os
import random
import stat

import numpy as np

from .task import Answers


def sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.append(int(name))
        except OSError:
            continue
    return found


class SpeaksOver(Answers):
    name = "garbage-on-the-socket"

    def build(self, given, run):
        for number in sockets():
            os.write(number, b"\x00\xff garbage\n")


class Forges(Answers):
    name = "forged-answer"

    def build(self, given, run):
        self.base = given["base"]
        for number in sockets():
            os.write(number, b'{"status": "ok"}\n')


class ForgesMore(Answers):
    name = "forged-status"

    def build(self, given, run):
        for number in sockets():
            os.write(number, b'{"status": "splendid", "reason": ["because"]}\n' * 3)


class Babbles(Answers):
    name = "babbles-on-the-socket"

    def build(self, given, run):
        while True:
            for number in sockets():
                os.write(number, b'{"progress": "soon"}\n' * 1000)


class Closes(Answers):
    name = "closes-everything"

    def build(self, given, run):
        os.closerange(0, 4096)


class Moves(Answers):
    name = "changes-directory"

    def build(self, given, run):
        self.base = given["base"]
        os.chdir("/")

    def save(self, folder):
        np.save(folder / "base.npy", self.base)

    def load(self, folder, given):
        self.base = np.load(folder / "base.npy", allow_pickle=False)


class Globals(Answers):
    name = "changes-globals"

    def build(self, given, run):
        self.base = given["base"]
        np.random.seed(0)
        random.seed(0)
        np.seterr(all="raise")
        os.environ.clear()
        os.umask(0o777)
        np.sort = None  # the next method must find it in place

    def answer(self, queries):
        dots = queries @ self.base.T
        ids = (-dots).argsort(axis=1)[:, :3]
        return ids, np.take_along_axis(dots, ids, axis=1)
