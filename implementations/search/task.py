"""Vector search: given a table of vectors, find for every query its k = 10 nearest rows.

Answers are judged as ann-benchmarks judges them (github.com/erikbern/ann-benchmarks): the task recomputes the distance of
every returned row, and a row counts if it is not farther than the true k-th neighbour, ties and a small tolerance included.
ann-benchmarks allows an absolute 1e-3; here the tolerance is relative, since an absolute one is generous where distances are
small. `strict-recall@10` allows 1e-6, which only forgives rounding.
"""

from __future__ import annotations

import importlib.util
import operator
from dataclasses import dataclass

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong

from .sets import GENERATED, draw
from .vectors import METRICS, K, distances, nearest, unit

DEPTH = 100  # neighbours kept in the prepared answer
TOLERANCE = 1e-3
STRICT = 1e-6
LARGEST = 1e37  # of a squared norm: four of them still fit into float32
SMALLEST = 1e-30


@dataclass(frozen=True, eq=False)
class Given:
    """What a method may see. `sample_queries` resemble the scored queries and are never scored."""

    base: np.ndarray  # float32 [n, d]
    metric: str  # l2 | ip | cosine
    k: int
    sample_queries: np.ndarray  # float32 [s, d]


@dataclass(frozen=True, eq=False)
class Hidden:
    queries: np.ndarray  # float32 [q, d]
    distances: np.ndarray  # float64 [q, DEPTH or n], true, ascending
    farthest: np.ndarray  # float64 [q], the distance of the row that is worst
    answers: np.ndarray | None = None  # int64 [q], the one right row where it is known


class VectorIndex(Method):
    """An index over vectors. A technique implements `index` and `nearest`; what may come in is checked here, once for all.

    Every method that can say so tallies `distances`: the vectors, centres included, whose distance to a query it computed, in full or
    through codes (a vector that is scored by its code and then in full counts twice).

    `metric` is "l2" (smallest distance) or "ip" (largest inner product) when `index` runs: for "cosine" the base has been
    scaled to unit length, after which the inner product gives the ranking whatever the length of the query.
    """

    metric: str
    rows: int
    d: int

    def index(self, base: np.ndarray, given: Given, run):
        """Build over `base`, finite float32 [rows, d], contiguous. As `Method.build`: returns None or yields Step."""
        raise NotImplementedError(f"method '{self.name}' has no index()")

    def nearest(self, queries, k: int):
        """Distinct row ids (an integer array of the framework) [q, k] in any order, q >= 1 and 1 <= k <= rows, for finite float32
        queries [q, d] of the framework. -1 stands where fewer than k candidates were looked at."""
        raise NotImplementedError(f"method '{self.name}' has no nearest()")

    def build(self, given: Given, run):
        return self.index(self.accept(given), given, run)

    def accept(self, given: Given) -> np.ndarray:
        """The base as `index` gets it; sets `metric`, `rows`, `d`; `load` calls it too. ValueError for what cannot be searched."""
        if given.metric not in METRICS:
            raise ValueError(f"unknown metric '{given.metric}' (known: {', '.join(METRICS)})")
        base = as_vectors(given.base, "the base")
        if not base.size:
            raise ValueError(f"the base is empty (shape {base.shape}): give at least one row and one column")
        squared = np.einsum("nd,nd->n", base, base, dtype=np.float64)
        if not squared.max() <= LARGEST:  # written so that NaN fails
            row = int(np.argmax(~(squared <= LARGEST)))
            raise ValueError(f"row {row} of the base holds NaN, infinity or values too large for float32 squared distances")
        if 0 < squared.max() < SMALLEST:
            raise ValueError(
                f"the base is too small for float32 squared distances (largest squared norm {squared.max():.1e}): scale it"
            )
        self.metric = "l2" if given.metric == "l2" else "ip"
        self.rows, self.d = base.shape
        return unit(base) if given.metric == "cosine" else base

    def search(self, queries, k: int):
        """Row ids [q, k]; -1 where there are fewer than k candidates. The one timed call.

        Any real vectors are accepted; float32 ones of the framework without a copy. The check for NaN is one dot product, the
        same for every method; on a GPU it waits for the device once.
        """
        k = operator.index(k)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if isinstance(queries, (np.ndarray, list, tuple)):
            queries = self.run.put(as_vectors(queries, "the queries"))
        elif not str(queries.dtype).endswith("float32"):
            queries = self.run.put(as_vectors(self.run.numpy(queries), "the queries"))
        if queries.ndim != 2 or queries.shape[1] != self.d:
            raise ValueError(
                f"queries of shape {tuple(queries.shape)} do not fit a base of {self.d} dimensions: give [q, {self.d}]"
            )
        if not len(queries):
            return self.run.put(np.empty((0, k), np.int64))
        if not self.squared_norm(queries) <= LARGEST:
            raise ValueError("the queries hold NaN, infinity or values too large for float32 squared distances")
        found = self.nearest(queries, min(k, self.rows))
        if k <= self.rows:
            return found
        found = self.run.numpy(found)
        return self.run.put(np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1))

    def squared_norm(self, queries) -> float:
        """The sum of all squares; not finite where an entry is not."""
        flat = queries.reshape(-1)
        return float(flat @ flat)


def as_vectors(array, what: str) -> np.ndarray:
    """float32 [n, d], contiguous. Integers and other floats are converted; text, objects and complex numbers are a ValueError."""
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(f"{what} must be a table [n, d], not of shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{what} must hold real numbers, not {array.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, which the caller refuses
        return np.ascontiguousarray(array, dtype=np.float32)


class VectorSearch(Task):
    name = "vector-search"
    version = 1
    title = "Nearest-neighbour search"
    interface = VectorIndex
    data = (
        Data(
            "clustered",
            {
                "n": 20000,
                "d": 128,
                "queries": 1000,
                "centers": 200,
                "rank": 48,
                "spread": 1.0,
                "noise": 0.15,
                "metric": "l2",
            },
        ),
        Data("fashion-mnist-784", {"rows": 60000, "queries": 1000, "metric": "l2"}, needs=("fashion-mnist",)),
        Data("glosses-384", {"rows": 100000, "queries": 1000, "ask": "glosses", "metric": "cosine"}, needs=("glosses-384",)),
        Data("file", {"path": "", "queries_path": "", "rows": 0, "queries": 1000, "metric": ""}),
    )
    cases = (
        Case("batch-256", {"batch": 256, "calls": 0}),
        Case("one-by-one", {"batch": 1, "calls": 200}),
        Case("batch-10000", {"batch": 10000, "calls": 0}, ()),  # for a GPU, where a suite names it
    )
    metrics = {
        "recall@10": Metric(unit="1", better="higher", sample="query"),
        "strict-recall@10": Metric(unit="1", better="higher", sample="query"),
        "relative-error": Metric(unit="1", better="lower", sample="query"),
        "mrr@10": Metric(unit="1", better="higher", sample="query"),
    }
    baselines = ("exact",)

    def prepare(self, data, size, seed, run):
        """The exact answer, and the vectors themselves where they are generated (so that no last bit can differ)."""
        made = draw(data, size, seed)
        device = run.device if run.device != "cpu" and importlib.util.find_spec("torch") else ""
        _, true, farthest = nearest(made["metric"], made["queries"], made["base"], min(DEPTH, len(made["base"])), device)
        kept = {name: array for name, array in made.items() if data.name in GENERATED or name not in ("base", "sample_queries")}
        return {**kept, "distances": true, "farthest": farthest}

    def given(self, data, size, seed, prepared):
        made = prepared if "base" in prepared else draw(data, size, seed)
        return Given(made["base"], str(prepared["metric"]), K, made["sample_queries"])

    def hidden(self, data, size, seed, prepared):
        return Hidden(prepared["queries"], prepared["distances"], prepared["farthest"], prepared.get("answers"))

    def bad_batches(self, case, hidden, run):
        good = hidden.queries[: case["batch"]]
        nan, infinite = good.copy(), good.copy()
        nan[-1, -1], infinite[0, 0] = np.nan, np.inf
        wrong = {
            "a query with NaN": nan,
            "a query with infinity": infinite,
            "queries too large for float32 distances": np.full_like(good, 1e30),
            "one dimension too few": good[:, 1:],
            "one dimension too many": np.pad(good, ((0, 0), (0, 1))),
            "a vector instead of a table": good[0],
            "text": good.astype(str),
            "complex numbers": good.astype(np.complex64),
        }
        # A framework's tensors cannot hold text: that comes as numpy gives it.
        return {label: run.put(batch) if batch.dtype.kind == "f" else batch for label, batch in wrong.items()}

    def batches(self, case, hidden, run):
        return [run.put(hidden.queries[rows]) for rows in asked(case, len(hidden.queries))]

    def call(self, method, batch, case):
        return method.search(batch, K)

    def score(self, method, given, hidden, case, outputs):
        rows = asked(case, len(hidden.queries))
        if len(outputs) != len(rows):
            raise Wrong(f"{len(outputs)} outputs for {len(rows)} batches")
        ids = np.concatenate([checked_ids(out, len(part), len(given.base)) for out, part in zip(outputs, rows)])
        query, first = np.unique(np.concatenate(rows), return_index=True)  # batches may overlap: a query is one sample
        found, answers = ids[first], hidden.answers
        scores = quality(given.metric, hidden.queries[query], given.base, found, hidden.distances[query], hidden.farthest[query])
        if answers is not None:
            scores["mrr@10"] = reciprocal_rank(given.metric, hidden.queries[query], given.base, found, answers[query])
        return scores


def asked(case: Case, count: int) -> list[np.ndarray]:
    """The query numbers of every batch: at least three different batches of one size, which together cover all queries or
    the first `calls` * `batch` of them. Where the size does not divide the count, batches overlap."""
    batch, calls = case["batch"], case["calls"]
    count = min(count, calls * batch) if calls else count
    if count < batch + 2:
        raise ValueError(f"case '{case.name}' needs at least {batch + 2} queries, not {count}: raise `queries` of the data")
    starts = np.linspace(0, count - batch, max(3, -(-count // batch))).astype(int)
    return [np.arange(start, start + batch) for start in starts]


def checked_ids(output, count: int, rows: int) -> np.ndarray:
    """The answer to one batch as int64 [count, K]; Wrong where it breaks the contract."""
    output = np.asarray(output)
    if output.shape != (count, K):
        raise Wrong(f"ids of shape {output.shape} instead of {(count, K)}")
    if output.dtype.kind != "i" or output.dtype.itemsize < 4:
        raise Wrong(f"ids of type {output.dtype} instead of int64 (or int32)")
    if output.min() < -1 or output.max() >= rows:
        raise Wrong(f"ids from {output.min()} to {output.max()} for a base of {rows} rows")
    ids = np.sort(output, axis=1)
    twice = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)
    if twice.any():
        raise Wrong(f"{int(twice.any(1).sum())} of {count} answers name a row twice")
    return output.astype(np.int64)


def quality(metric, queries, base, ids, true, farthest) -> dict[str, np.ndarray]:
    """Metrics per query from recomputed distances. A missing answer (-1) is no hit and as bad as the farthest row."""
    missing = ids < 0
    found = distances(metric, queries, base, np.where(missing, 0, ids))
    reach = true[:, K - 1 : K]

    def recall(tolerance):
        return ((found <= reach + tolerance * np.abs(reach) + 1e-12) & ~missing).sum(1) / K

    best = true[:, :K].sum(1)
    excess = np.where(missing, farthest[:, None], found).sum(1) - best
    scale = np.abs(true[:, :K]).sum(1)
    return {
        "recall@10": recall(TOLERANCE),
        "strict-recall@10": recall(STRICT),
        "relative-error": np.maximum(excess, 0) / np.where(scale > 0, scale, 1),
    }


def reciprocal_rank(metric, queries, base, ids, answers) -> np.ndarray:
    """1 / rank of the known answer among the K rows found, in the order of recomputed distances; 0 where it is not among them.

    The exact search does not score 1 here: how near the right row is to its query is a property of the embedding.
    """
    found = np.where(ids < 0, np.inf, distances(metric, queries, base, np.maximum(ids, 0)))
    hit = ids == answers[:, None]
    own = np.where(hit, found, np.inf).min(1)
    rank = 1 + (found < own[:, None]).sum(1)
    return np.where(hit.any(1), 1.0 / rank, 0.0)
