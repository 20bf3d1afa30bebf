"""Never comes back."""

import os
import signal
import threading
import time

from .task import Answers, beat_for_ever


class LoopsInBuild(Answers):
    name = "loops-in-build"

    def build(self, given, run):
        beat_for_ever(self.name)


class LoopsInServe(Answers):
    name = "loops-in-serve"

    def answer(self, queries):
        beat_for_ever(self.name)


class LoopsInSave(Answers):
    name = "loops-in-save"

    def save(self, folder):
        beat_for_ever(self.name)

    def load(self, folder, given):
        pass


class IgnoresSignals(Answers):
    name = "ignores-signals"

    def build(self, given, run):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        beat_for_ever(self.name)


class StopsItself(Answers):
    name = "stops-itself"

    def build(self, given, run):
        threading.Thread(target=beat_for_ever, args=(self.name,), daemon=True).start()
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGSTOP)


class LoopsOverErrors(Answers):
    name = "loops-over-errors"

    def build(self, given, run):
        while True:
            try:
                beat_for_ever(self.name)
            except BaseException:
                continue
