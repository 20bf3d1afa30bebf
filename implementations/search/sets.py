"""The data of the task: base, scored queries and sample queries, disjoint, by the name and arguments of a data set (numpy only)."""

from __future__ import annotations

import numpy as np

from effbench import Data, DataError, dataset, vectors

from .vectors import METRICS, K, clustered, unit

SAMPLE = 500  # sample queries a method may look at while it builds
SMOKE_ROWS, SMOKE_QUERIES = 2000, 300
GENERATED = ("clustered",)  # kept in the prepared material, so that no last bit can differ; the others are read again


def draw(data: Data, size: str, seed: int) -> dict[str, np.ndarray]:
    """base, queries, sample_queries (float32), metric, and `answers` int64 [q] where each query has one known right row.

    Smoke size caps rows and queries. clustered: one draw of the generator, cut in three, so that queries are distributed like the
    base. fashion-mnist-784: first training images; first test images; the test images after the scored ones. glosses-384: `ask` =
    "glosses" takes queries from the rows that are left (in distribution), "examples" the usage examples of the rows that are
    searched (out of distribution, the right row is known). file: queries are the file's own, or rows taken out by the seed.
    """
    args = dict(data.args)
    if args["metric"] not in METRICS and (args["metric"] or data.name != "file"):
        raise ValueError(f"{data}: unknown metric '{args['metric']}' (known: {', '.join(METRICS)})")
    rows, queries = args["rows" if "rows" in args else "n"], args["queries"]
    if rows < (0 if data.name == "file" else K) or queries < 1:
        raise ValueError(f"{data}: at least {K} rows and one query are needed, not {rows} and {queries}")
    if size == "smoke":
        rows, queries = min(rows or SMOKE_ROWS, SMOKE_ROWS), min(queries, SMOKE_QUERIES)
    made = DRAWN[data.name](data, args, rows, queries, seed)
    return {"metric": args["metric"], **made}


def _clustered(data, args, rows, queries, seed):
    shape = {name: args[name] for name in ("centers", "rank", "spread", "noise")}
    made = clustered(np.random.default_rng([seed, 0x5EA]), rows + queries + SAMPLE, args["d"], **shape)
    return _cut(*np.split(made, [rows, rows + queries]))


def _fashion(data, args, rows, queries, seed):
    images = dataset("fashion-mnist")
    train, test = images["train_images"], images["test_images"]
    if rows > len(train) or queries + SAMPLE > len(test):
        raise ValueError(f"{data}: there are {len(train)} rows and {len(test) - SAMPLE} queries")
    parts = (train[:rows], test[:queries], test[queries : queries + SAMPLE])
    return _cut(*(part.reshape(len(part), -1).astype(np.float32) / np.float32(255) for part in parts))


def _glosses(data, args, rows, queries, seed):
    """The rows of the set are in random order: any prefix is a random sample."""
    if args["ask"] not in ("glosses", "examples"):
        raise ValueError(f"{data}: ask must be 'glosses' or 'examples', not '{args['ask']}'")
    arrays = dataset("glosses-384")
    every, wanted = arrays["vectors"], queries + SAMPLE
    spare = len(every) - (wanted if args["ask"] == "glosses" else 0)
    if rows > spare:
        raise ValueError(f"{data}: there are {spare} rows beside the queries, not {rows}")
    base = every[:rows]
    if args["ask"] == "glosses":
        return _cut(*(unit(part.astype(np.float32)) for part in (base, every[len(every) - wanted :][:queries], every[-SAMPLE:])))
    known = np.flatnonzero(arrays["example_rows"] < rows)[:wanted]
    if len(known) < wanted:
        raise ValueError(f"{data}: only {len(known)} examples belong to these {rows} rows; {wanted} are wanted")
    asked = unit(arrays["example_vectors"][known].astype(np.float32))
    made = _cut(unit(base.astype(np.float32)), asked[:queries], asked[queries:])
    return {**made, "answers": arrays["example_rows"][known[:queries]]}


def _file(data, args, rows, queries, seed):
    if not args["path"]:
        raise ValueError(f"{data}: name a file, as file(path='vectors.fbin')")
    own = args["queries_path"] or None
    found = vectors(args["path"], own, rows=rows if own else rows and rows + queries + SAMPLE)
    base, asked, metric = found["base"], found["queries"], args["metric"] or found["metric"] or "l2"
    if asked is None:
        order = np.random.default_rng([seed, 0xF11E]).permutation(len(base))
        if len(base) < K + queries + SAMPLE:
            raise DataError(
                f"{len(base)} rows are too few for {queries} queries, {SAMPLE} sample queries and a base of {K}",
                where=args["path"],
                remedy="Lower `queries`, or give a file of queries (queries_path).",
            )
        asked, sample, base = np.split(base[order], [queries, queries + SAMPLE])
        return {**_cut(base[: rows or None], asked, sample), "metric": metric}
    if rows > len(base) or queries > len(asked) or len(base) < K:
        raise DataError(
            f"{len(base)} rows and {len(asked)} queries, but {max(rows, K)} and {queries} are wanted",
            where=args["path"],
            remedy="Lower `rows` or `queries` of the data.",
        )
    # Sample queries are never scored; where the file has none to spare, rows of the base stand in for them.
    sample = asked[queries : queries + SAMPLE] if len(asked) > queries else base[:SAMPLE]
    return {**_cut(base[: rows or None], asked[:queries], sample), "metric": metric}


DRAWN = {"clustered": _clustered, "fashion-mnist-784": _fashion, "glosses-384": _glosses, "file": _file}


def _cut(base, queries, sample):
    parts = {"base": base, "queries": queries, "sample_queries": sample}
    return {name: np.ascontiguousarray(part, np.float32) for name, part in parts.items()}
