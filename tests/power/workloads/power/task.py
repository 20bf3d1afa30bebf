"""Work whose amount is known: `extra` per cent more of it is done, not pretended."""

from effbench import Case, Data, Method, Metric, Task


class Work(Method):
    def work(self, number):
        raise NotImplementedError


class Power(Task):
    name = "power"
    interface = Work
    data = (Data("none"),)
    cases = (Case("call"),)
    metrics = {"done": Metric("1", "higher", "call")}
    baselines = ("matmul",)

    def given(self, data, size, seed, prepared):
        return {}

    def hidden(self, data, size, seed, prepared):
        return {}

    def batches(self, case, hidden, run):
        return [0, 1, 2]

    def call(self, method, batch, case):
        return method.work(batch)

    def score(self, method, given, hidden, case, outputs):
        return {"done": [1.0] * len(outputs)}
