"""Raises, everywhere it can."""

from .task import Answers


class RaisesInInit(Answers):
    name = "raises-in-init"

    def __init__(self, **settings):
        raise ValueError("no such object")


class RaisesInSkip(Answers):
    name = "raises-in-skip"

    def skip(self, given):
        raise ValueError("no opinion")


class RaisesInBuild(Answers):
    name = "raises-in-build"

    def build(self, given, run):
        raise ValueError("no index")


class RaisesInServe(Answers):
    name = "raises-in-serve"

    def answer(self, queries):
        raise ValueError("no answer")


class RaisesInSave(Answers):
    name = "raises-in-save"

    def save(self, folder):
        raise ValueError("no folder")

    def load(self, folder, given):
        pass


class RaisesInLoad(Answers):
    name = "raises-in-load"

    def save(self, folder):
        (folder / "kept.txt").write_text("something")

    def load(self, folder, given):
        raise ValueError("no file")


class Recursion(Answers):
    name = "recursion"

    def build(self, given, run):
        return self.build(given, run)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("not even a message")


class RaisesTheUnspeakable(Answers):
    name = "raises-the-unspeakable"

    def build(self, given, run):
        raise Unspeakable


class Interrupts(Answers):
    name = "interrupts"

    def build(self, given, run):
        raise KeyboardInterrupt


class RaisesOnImport(Answers):
    name = "imports-nothing"

    def build(self, given, run):
        import no_such_module_anywhere  # noqa: F401


class FullDisk(Answers):
    name = "claims-a-full-disk"

    def build(self, given, run):
        raise OSError(28, "No space left on device")
