"""Answers that are not answers."""

import sys

import numpy as np

from .task import Answers


class NotANumber(Answers):
    name = "nan"

    def answer(self, queries):
        ids, values = super().answer(queries)
        return ids, values * np.nan


class Shape(Answers):
    name = "shape"

    def answer(self, queries):
        return tuple(part[:, :2] for part in super().answer(queries))


class Kind(Answers):
    name = "dtype"

    def answer(self, queries):
        ids, values = super().answer(queries)
        return ids.astype(float), values


class Duplicates(Answers):
    name = "duplicates"

    def answer(self, queries):
        return tuple(part[:, [0, 0, 1]] for part in super().answer(queries))


class Nothing(Answers):
    name = "nothing"

    def answer(self, queries):
        return None


class Objects(Answers):
    name = "objects"

    def answer(self, queries):
        return object(), "text"


class Yesterday(Answers):
    name = "yesterday"
    kept = None

    def answer(self, queries):
        if self.kept is None:
            self.kept = super().answer(queries)
        return self.kept


class TwoFaced(Answers):
    name = "two-faced"

    def answer(self, queries):
        """Guesses while it is timed; thinks when it is scored."""
        if not self.scored():
            return np.tile(np.arange(3), (len(queries), 1)), np.zeros((len(queries), 3))
        return super().answer(queries)

    def scored(self):
        frame = sys._getframe()
        while frame:
            if frame.f_code.co_name == "finish":
                return True
            frame = frame.f_back
        return False


class TwoFacedCount(Answers):
    name = "two-faced-count"

    def answer(self, queries):
        if self.run._counting:
            return np.tile(np.arange(3), (len(queries), 1)), np.zeros((len(queries), 3))
        return super().answer(queries)


class Mutates(Answers):
    name = "mutates"

    def answer(self, queries):
        found = super().answer(queries)
        queries *= 0.5
        return found
