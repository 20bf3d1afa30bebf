"""A loop in the interpreter; more steps are more work."""

from effbench import param

from .task import Work

STEPS = 20_000


class Loop(Work):
    name = "loop"
    extra = param(0)

    def build(self, given, run):
        self.steps = STEPS * (100 + self.extra) // 100

    def work(self, number):
        total = number
        for step in range(self.steps):
            total += step & 7
        return total
