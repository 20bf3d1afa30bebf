"""Count to the budget, one Step at a time."""

from effbench import Curve, Data, Method, Metric, Step, Task


class Counter(Method):
    """`build` yields Steps and keeps `count`."""

    count = 0
    end = None

    def build(self, given, run):
        for _ in range(run.budget.steps):
            self.count += 1
            yield Step()


class Counting(Task):
    name = "counting"
    interface = Counter
    phases = ("build",)
    data = (Data("nothing"),)
    metrics = {"count": Metric("1", "higher", "run"), "trace": Metric("1", "higher", "run")}
    baselines = ("counts",)

    def evaluate(self, method, given):
        return {"count": method.count} if method.end is None else {}

    def score(self, method, given, hidden, case, outputs):
        trace = {} if method.end is None else {"trace": Curve([1.0, 2.0, 3.0], [1.0, 2.0, method.end])}
        return {"count": method.count, **trace}
