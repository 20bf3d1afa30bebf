"""Toy dual encoder: index time apart from training time; the teacher's vectors are inherited and cost nothing."""

import numpy as np

from effbench import Case, Data, Method, Metric, Task


class QueryTower(Method):
    documents = None

    def encode(self, texts):
        raise NotImplementedError


class ToyRetrieval(Task):
    name = "toy-retrieval"
    interface = QueryTower
    data = (Data("pairs", {"documents": 60}),)
    cases = (Case("queries-8"),)
    metrics = {"mrr": Metric("1", "higher", "query")}
    baselines = ("toy-distill",)

    def prepare(self, data, size, seed, run):
        rng = np.random.default_rng(11)
        documents = rng.standard_normal((data.args["documents"], 10))
        return {
            "documents": documents,
            "teacher": rng.standard_normal((10, 4)),
            "document_vectors": documents @ rng.standard_normal((10, 4)),
        }

    def given(self, data, size, seed, prepared):
        queries = prepared["documents"][:40] + 0.1 * np.random.default_rng(seed).standard_normal((40, 10))
        return {**prepared, "queries": queries, "targets": prepared["document_vectors"][:40]}

    def hidden(self, data, size, seed, prepared):
        return {"queries": prepared["documents"][40:] + 0.1, "answer": np.arange(40, len(prepared["documents"]))}

    def batches(self, case, hidden, run):
        return [hidden["queries"][i : i + 8] for i in range(0, len(hidden["queries"]), 8)]

    def call(self, method, batch, case):
        return np.argsort(-(method.encode(batch) @ method.documents.T), axis=1)

    def score(self, method, given, hidden, case, outputs):
        ranks = np.argmax(np.concatenate(outputs) == hidden["answer"][:, None], axis=1)
        return {"mrr": 1 / (1 + ranks)}
