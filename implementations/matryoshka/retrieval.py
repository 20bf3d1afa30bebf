"""Retrieval with embeddings that may be cut: find, for every query, the gallery rows that share its label, in 10 answers.

By class, the gallery is the training part and queries are unseen; `gloss-examples` asks for the one right gloss. Similarity is the cosine of what is compared: a prefix is scaled to unit length
anew. All encoders are prepared (`material.py`). The timed call begins with the query's full embedding: the encoder's work, the same
for all arms with one encoder, stands in `encoder-flops`, so that nobody forgets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong, param

from . import material

K = 10
QUERIES = {"smoke": 256, "quick": 1024, "full": 4096}
EMBEDDINGS = ("mrl", "plain", "pca", "separate")


@dataclass(frozen=True, eq=False)
class Given:
    """gallery: family -> float32 [n, d] ("separate": every size's network, one after the other). No labels."""

    gallery: dict[str, np.ndarray]
    sizes: tuple[int, ...]
    encoder_flops: dict[int, float]  # of one query: one encoder with m outputs

    @property
    def d(self) -> int:
        return self.sizes[-1]


@dataclass(frozen=True, eq=False)
class Hidden:
    queries: dict[str, np.ndarray]
    labels: np.ndarray
    gallery_labels: np.ndarray
    exact: np.ndarray  # [q, K] rows: exact search with the full MRL embedding


class Retriever(Method):
    """The interface: `search` gives the K best gallery rows for a batch of queries, best first.

    `embedding`: "mrl"; "plain", a full-size model cut short; "pca", the same turned first; "separate", a network for each size.
    """

    backend = "torch"
    embedding = param("mrl", sweep=("mrl", "plain", "pca", "separate"))

    def search(self, queries: dict[str, Any]):
        """queries: family -> embeddings [q, ...] on the device. Rows, integers [q, K]."""
        raise NotImplementedError(f"method '{self.name}' has no search()")

    def used(self) -> tuple[int, ...]:
        """The sizes that a query is compared at, in order."""
        raise NotImplementedError(f"method '{self.name}' has no used()")

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def size(self, value: int, what: str) -> int:
        """A knob that names a size: 0 means the full one. ValueError for what is no size."""
        value = value or self.sizes[-1]
        if value not in self.sizes:
            raise ValueError(f"{what}={value} is none of the sizes {self.sizes}")
        return value

    def encoding(self, given: Given) -> float:
        """FLOPs of the encoders for one query."""
        sizes = self.used() if self.embedding == "separate" else (max(self.used()),)
        return sum(given.encoder_flops[given.d if self.embedding == "pca" else m] for m in set(sizes))


class EmbeddingRetrieval(Task):
    name = "embedding-retrieval"
    version = 1
    title = "Retrieval with embeddings that may be cut short"
    interface = Retriever
    data = (
        Data("fashion-mnist", {"rows": 20000, "width": 256, "d": 64}, needs=("fashion-mnist",)),
        Data("fashion-mnist-cnn", {"rows": 20000, "width": 16, "d": 64}, needs=("fashion-mnist",)),
        Data("gloss-examples", {"rows": 30000, "d": 256}, needs=("glosses-384",)),
        Data("glosses", {"rows": 30000, "width": 256, "d": 256}, needs=("glosses-384",)),
        Data("digits", {"width": 64, "d": 64}),
    )
    cases = (Case("batch-64", {"batch": 64}), Case("one-by-one", {"batch": 1}, ("quick", "full")))
    metrics = {
        "map@10": Metric("1", "higher", "query"),
        "relative-map@10": Metric("1", "higher", "query"),
        "precision@10": Metric("1", "higher", "query"),
        "recall@10": Metric("1", "higher", "query"),
        "encoder-flops": Metric("FLOP", "lower", "query"),
    }
    baselines = ("single-shot",)

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        count = QUERIES[size]
        if data.name == "gloss-examples":
            from . import examples

            spec, sets, labels = examples.made(data, size, run)
            sets["queries"] = {family: array[:count] for family, array in sets["queries"].items()}
            gallery_labels, labels = np.arange(data.args["rows"])[: len(sets["gallery"]["mrl"])], labels[:count]
            flops = [2.0 * spec.inputs * m for m in spec.sizes]
        else:
            from .encoder import forward_flops

            spec, parts, _, arrays = material.made(data, size, run)
            test = {family: array[:count] for family, array in arrays["test"].items()}
            sets, labels = {"gallery": arrays["train"], "queries": test}, parts["test"].labels[:count]
            gallery_labels, flops = parts["train"].labels, [float(forward_flops(spec, m)) for m in spec.sizes]
        return {
            **{f"{name}-{family}": sets[name][family] for name in sets for family in material.FAMILIES},
            "gallery-labels": gallery_labels,
            "query-labels": labels,
            "exact": exact(sets["gallery"]["mrl"], sets["queries"]["mrl"]),
            "sizes": np.array(spec.sizes),
            "encoder-flops": np.array(flops),
        }

    def given(self, data, size, seed, prepared) -> Given:
        sizes = tuple(int(m) for m in prepared["sizes"])
        gallery = {family: prepared[f"gallery-{family}"] for family in material.FAMILIES}
        return Given(gallery, sizes, dict(zip(sizes, (float(x) for x in prepared["encoder-flops"]))))

    def hidden(self, data, size, seed, prepared) -> Hidden:
        queries = {family: prepared[f"queries-{family}"] for family in material.FAMILIES}
        return Hidden(queries, prepared["query-labels"], prepared["gallery-labels"], prepared["exact"])

    def batches(self, case, hidden, run) -> list:
        return [
            {family: run.put(array[rows]) for family, array in hidden.queries.items()} for rows in asked(case, len(hidden.labels))
        ]

    def bad_batches(self, case, hidden, run) -> dict:
        wide = {family: run.put(np.ones((4, array.shape[1] + 1), np.float32)) for family, array in hidden.queries.items()}
        holes = {family: run.put(np.full((4, array.shape[1]), np.nan, np.float32)) for family, array in hidden.queries.items()}
        return {"queries of another length": wide, "queries that are not numbers": holes}

    def call(self, method, batch, case):
        return method.search(batch)

    def items(self, batch, output) -> int:
        return len(output)

    def score(self, method, given, hidden, case, outputs) -> dict:
        rows = asked(case, len(hidden.labels))
        if len(rows) != len(outputs):
            raise Wrong(f"{len(outputs)} outputs for {len(rows)} batches")
        gallery = len(hidden.gallery_labels)
        ids = np.concatenate([checked(np.asarray(out), len(part), gallery) for out, part in zip(outputs, rows)])
        query = np.concatenate(rows)
        labels = hidden.labels[query, None]
        relevant = (hidden.gallery_labels[ids] == labels) & (ids >= 0)
        known, count = np.unique(hidden.gallery_labels, return_counts=True)
        there = dict(zip(known.tolist(), count.tolist()))
        possible = np.array([there.get(label, 0) for label in hidden.labels.tolist()])
        reference = average_precision(hidden.gallery_labels[hidden.exact] == hidden.labels[:, None], possible).mean()
        precision = average_precision(relevant, possible[query])
        return {
            "map@10": precision,
            "relative-map@10": precision / max(float(reference), 1e-12),
            "precision@10": relevant.mean(1),
            "recall@10": (ids[:, :, None] == hidden.exact[query][:, None, :]).any(2).mean(1),
            "encoder-flops": method.encoding(given),
        }


def asked(case: Case, count: int) -> list[np.ndarray]:
    """Query numbers of each batch: disjoint, at most 16 batches of a larger size, at most 128 single queries."""
    batch = case["batch"]
    return [np.arange(i * batch, (i + 1) * batch) for i in range(min(count // batch, 16 if batch > 1 else 128))]


def checked(ids: np.ndarray, count: int, gallery: int) -> np.ndarray:
    if ids.shape != (count, K) or ids.dtype.kind != "i":
        raise Wrong(f"ids {ids.dtype} of shape {ids.shape} instead of integers {(count, K)}")
    if ids.min() < -1 or ids.max() >= gallery:
        raise Wrong(f"ids from {ids.min()} to {ids.max()} for a gallery of {gallery} rows")
    ordered = np.sort(ids, 1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise Wrong("an answer names a row twice")
    return ids.astype(np.int64)


def average_precision(relevant: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """AP@K [q]: the precision at every relevant place, summed and divided by K, or by how many relevant rows there are, if fewer.

    With one right answer this is its reciprocal rank.
    """
    k = relevant.shape[1]
    hits = relevant.cumsum(1) / np.arange(1, k + 1)
    return (hits * relevant).sum(1) / np.clip(possible, 1, k)


def exact(gallery: np.ndarray, queries: np.ndarray, block: int = 256) -> np.ndarray:
    """The K rows with the largest cosine, best first, int64 [q, K]."""
    from .judge import unit

    table, queries, found = unit(gallery).T, unit(queries), []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ table
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.take_along_axis(-scores, best, 1).argsort(1, kind="stable")
        found.append(np.take_along_axis(best, order, 1))
    return np.concatenate(found)
