"""Toy vector search: metric, k and sample queries are known at build time; (leaves, rescore) go as pairs; two named cases."""

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong


class VectorIndex(Method):
    def search(self, queries, k):
        raise NotImplementedError


class ToySearch(Task):
    name = "toy-search"
    interface = VectorIndex
    data = (Data("blobs", {"n": 400, "d": 8}),)
    cases = (Case("batch", {"size": 16}), Case("one-by-one", {"size": 1}))
    metrics = {"recall@5": Metric("1", "higher", "query")}
    baselines = ("toy-exact",)

    def _draw(self, data, seed):
        rng = np.random.default_rng([7, seed])
        return rng.standard_normal((data.args["n"], data.args["d"])), rng.standard_normal((64, data.args["d"]))

    def prepare(self, data, size, seed, run):
        base, queries = self._draw(data, seed)
        return {"truth": np.argsort(-queries @ base.T, axis=1)[:, :5], "note": "exact inner products"}

    def given(self, data, size, seed, prepared):
        base, queries = self._draw(data, seed)
        return {"base": base, "metric": "ip", "k": 5, "sample_queries": queries[48:]}

    def hidden(self, data, size, seed, prepared):
        assert prepared["note"] == "exact inner products"
        return {"queries": self._draw(data, seed)[1][:48], "truth": prepared["truth"]}

    def batches(self, case, hidden, run):
        size = case["size"]
        return [hidden["queries"][i : i + size].copy() for i in range(0, 48, size)]

    def call(self, method, batch, case):
        return method.search(batch, 5)

    def score(self, method, given, hidden, case, outputs):
        found = np.concatenate(outputs)
        if found.shape != (48, 5):
            raise Wrong(f"shape {found.shape}")
        return {"recall@5": [len(set(a) & set(b)) / 5 for a, b in zip(found, hidden["truth"])]}
