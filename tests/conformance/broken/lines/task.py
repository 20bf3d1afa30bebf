"""A toy problem: multiply a vector with a matrix that the build is given."""

import numpy as np

from effbench import Case, Data, Flops, Method, Metric, Task, Wrong


class Product(Method):
    def build(self, given, run):
        self.matrix = given["matrix"]

    def times(self, x):
        return x @ self.matrix

    def flops(self, phase, case, tally):
        return Flops(0.0 if phase == "build" else 2.0 * 64 * 256 * 256)


class Products(Task):
    name = "products"
    interface = Product
    data = (Data("normal", {"n": 256}),)
    cases = (Case("batch", {"rows": 64}),)
    metrics = {"error": Metric("1", "lower", "row")}

    def given(self, data, size, seed, prepared):
        return {"matrix": np.random.default_rng([1, seed]).standard_normal((data.args["n"],) * 2).astype(np.float32)}

    def hidden(self, data, size, seed, prepared):
        return np.random.default_rng([2, seed]).standard_normal((4, 64, data.args["n"])).astype(np.float32)

    def batches(self, case, hidden, run):
        return [run.put(part) for part in hidden]

    def bad_batches(self, case, hidden, run):
        return {"too few columns": run.put(hidden[0][:, :3])}

    def call(self, method, batch, case):
        return method.times(batch)

    def score(self, method, given, hidden, case, outputs):
        error = np.stack([np.abs(out - x @ given["matrix"]).max(1) for out, x in zip(outputs, hidden)]).ravel()
        if error.max() > 1e-2:
            raise Wrong(f"off by {error.max():.3g}")
        return {"error": error}
