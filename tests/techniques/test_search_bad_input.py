"""Every search method, whatever comes in: the right answer or a clear error, never a silent wrong one.

The methods are those of the registry, so that a new one is asked the same without a word here. Knobs are set to so much work that
nothing but the input decides: graphs alone may miss a few.
"""

import functools
import importlib
import math

import numpy as np
import pytest
from effbench_implementations.search.outside import missing
from effbench_implementations.search.task import Given, VectorSearch
from effbench_implementations.search.vectors import distances, nearest

from effbench import Case, Run
from effbench.backends import get
from effbench.plan.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
WORK = {"leaves": 64, "rescored": 10_000, "factor": 1000, "ef": 400, "expansion": 400, "recall_target": 1.0}
SMALL = {"partitions": 8, "links": 8}
GRAPHS = ("faiss-hnsw", "hnswlib", "usearch")
LIBRARY_FAULTS = {
    ("faiss-hnsw", "rows of zeros"): "many equal rows cut the graph: neighbours behind them are missed",
    ("faiss-ivfpqfs", "nothing but zeros"): "the library gives no answer (-1) where all scores are equal",
    ("faiss-ivfpqfs", "a query of zeros"): "the library gives no answer (-1) where all scores are equal",
}
RNG = np.random.default_rng(5)
BASE = RNG.standard_normal((300, 12)).astype(np.float32)
QUERIES = RNG.standard_normal((7, 12)).astype(np.float32)
WHOLE = RNG.integers(-9, 10, (300, 12))
INFOS = Registry.read().methods_of("vector-search")


@functools.cache
def cls(name):
    return getattr(importlib.import_module(INFOS[name].file.absolute), INFOS[name].cls)


METHODS = [name for name, info in INFOS.items() if info.area == "search" and not missing(*getattr(cls(name), "modules", ()))]


def made(name, base, metric="l2", **settings):
    """The method built over `base`; skips the test where the method gives a reason."""
    kind = cls(name)
    known = kind.settings()
    method = kind(**{key: value for key, value in {**SMALL, **WORK, **settings}.items() if key in known})
    method.run = run = Run(backend=get(kind.backend), seed=3)
    given = Given(base, metric, 10, None)
    if reason := method.skip(given):
        assert len(reason.split()) > 2
        pytest.skip(reason)
    method.build(given, run)
    return method


def check(name, base, queries, k, metric="l2"):
    """Shape, range, no row twice, -1 beyond the base; and no returned row is farther than it may be."""
    method = made(name, base, metric)
    found = method.run.numpy(method.search(queries, k))
    n, count = len(base), min(k, len(base))
    assert found.shape == (len(queries), k) and found.dtype.kind == "i"
    assert found.max(initial=-1) < n and found.min(initial=0) >= -1
    for row in found.tolist():
        answered = [each for each in row if each >= 0]
        assert len(set(answered)) == len(answered)
        assert len(answered) == count or (name in GRAPHS and len(answered) <= count)
    if not len(queries):
        return
    plain, asked = np.asarray(base, np.float32), np.asarray(queries, np.float32)
    true = nearest(metric, asked, plain, count)[1]
    got = np.sort(np.where(found < 0, np.inf, distances(metric, asked, plain, np.maximum(found, 0))), 1)[:, :count]
    right = got <= true + 1e-5 * (1 + np.abs(true).max())
    assert right.mean() >= (0.9 if name in GRAPHS else 1.0)


def changed(array, **places):
    array = array.copy()
    array[places["row"], places["column"]] = places["value"]
    return array


every = pytest.mark.parametrize("name", METHODS)

ZEROS = np.where(np.arange(300)[:, None] % 7 == 0, np.float32(0), BASE)
VALID = {
    "k beyond the base": (BASE[:130], QUERIES, 200),
    "k equal to the base": (BASE[:130], QUERIES, 130),
    "one row": (BASE[:1], QUERIES, 10),
    "two rows": (BASE[:2], QUERIES, 1),
    "fewer rows than partitions": (BASE[:5], QUERIES, 3),
    "one dimension": (BASE[:, :1].copy(), QUERIES[:, :1].copy(), 5),
    "an odd dimension": (BASE[:, :11].copy(), QUERIES[:, :11].copy(), 10),
    "every row twice": (np.repeat(BASE[:150], 2, 0), QUERIES, 10),
    "all rows equal": (np.tile(BASE[:1], (200, 1)), QUERIES, 10),
    "a query that is a row": (BASE, BASE[:4], 10),
    "rows of zeros": (ZEROS, QUERIES, 10),
    "nothing but zeros": (np.zeros((150, 12), np.float32), QUERIES, 10),
    "a query of zeros": (BASE, np.concatenate([QUERIES[:2], np.zeros((1, 12), np.float32)]), 10),
    "no query": (BASE, QUERIES[:0], 10),
    "one query": (BASE, QUERIES[:1], 10),
}
TYPES = {
    "int64": (WHOLE, WHOLE[:5] + 1),
    "int8": (WHOLE.astype(np.int8), WHOLE[:5].astype(np.int8)),
    "uint8": (np.abs(WHOLE).astype(np.uint8), np.abs(WHOLE[:5]).astype(np.uint8)),
    "uint8 beyond int8": (np.abs(WHOLE * 25).clip(0, 255).astype(np.uint8), np.abs(WHOLE[:5] * 25).clip(0, 255).astype(np.uint8)),
    "float64": (BASE.astype(np.float64), QUERIES.astype(np.float64)),
    "float16": (BASE.astype(np.float16), QUERIES.astype(np.float16)),
    "big-endian": (BASE.astype(">f4"), QUERIES.astype(">f4")),
    "column order": (np.asfortranarray(BASE), np.asfortranarray(QUERIES)),
    "every second column": (np.repeat(BASE, 2, 1)[:, ::2], np.repeat(QUERIES, 2, 1)[:, ::2]),
    "backwards": (BASE[::-1, ::-1], QUERIES[::-1, ::-1]),
    "read-only": (BASE.copy(), QUERIES.copy()),
}
for _array in TYPES["read-only"]:
    _array.flags.writeable = False


@every
@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("situation", VALID)
def test_odd_tables_get_right_answers(name, metric, situation):
    if (name, situation) in LIBRARY_FAULTS:
        pytest.xfail(LIBRARY_FAULTS[name, situation])
    check(name, *VALID[situation], metric)


@every
@pytest.mark.parametrize("situation", TYPES)
def test_other_types_and_layouts_are_converted(name, situation, metric="cosine"):
    base, queries = TYPES[situation]
    before = base.copy(), queries.copy()
    check(name, base, queries, 10, metric)
    assert np.array_equal(before[0], base) and np.array_equal(before[1], queries)


@every
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_numbers_of_any_size_that_float32_distances_bear(name, scale):
    check(name, BASE * np.float32(scale), QUERIES * np.float32(scale), 10, "cosine")


BAD_BASE = {
    "no rows": (BASE[:0], "empty"),
    "no columns": (BASE[:, :0], "empty"),
    "a row instead of a table": (BASE[0], "table"),
    "a cube": (BASE[None], "table"),
    "a number": (np.float32(1), "table"),
    "NaN": (changed(BASE, row=299, column=11, value=np.nan), "row 299.*NaN"),
    "infinity": (changed(BASE, row=0, column=0, value=np.inf), "row 0.*infinity"),
    "minus infinity": (changed(BASE, row=7, column=3, value=-np.inf), "row 7.*infinity"),
    "too large for float32": (BASE.astype(np.float64) * 1e300, "too large"),
    "too large for squared distances": (BASE * np.float32(1e25), "too large"),
    "too small for squared distances": (BASE * np.float32(1e-25), "too small"),
    "text": (BASE.astype(str), "real numbers"),
    "objects": (BASE.astype(object), "real numbers"),
    "complex numbers": (BASE.astype(np.complex64), "real numbers"),
    "truth values": (BASE > 0, "real numbers"),
}


@every
@pytest.mark.parametrize("situation", BAD_BASE)
def test_a_base_that_cannot_be_searched_is_refused(name, situation):
    base, message = BAD_BASE[situation]
    with pytest.raises(ValueError, match=message):
        made(name, base)


@every
@pytest.mark.parametrize("metric", ["euclidean", "dot", "", "L2", "hamming"])
def test_an_unknown_metric_is_refused(name, metric):
    with pytest.raises(ValueError, match=f"unknown metric '{metric}'"):
        made(name, BASE, metric)


BAD_QUERIES = {
    "one dimension too few": (QUERIES[:, 1:], "do not fit"),
    "one dimension too many": (np.pad(QUERIES, ((0, 0), (0, 1))), "do not fit"),
    "a row instead of a table": (QUERIES[0], "table"),
    "NaN": (changed(QUERIES, row=6, column=11, value=np.nan), "NaN"),
    "infinity": (changed(QUERIES, row=0, column=0, value=-np.inf), "infinity"),
    "too large": (QUERIES * np.float32(1e25), "too large"),
    "text": (QUERIES.astype(str), "real numbers"),
    "complex numbers": (QUERIES.astype(np.complex64), "real numbers"),
    "objects": (QUERIES.astype(object), "real numbers"),
}


@every
def test_bad_queries_and_k_are_refused_and_the_index_stays_right(name):
    method = made(name, BASE)
    for queries, message in BAD_QUERIES.values():
        with pytest.raises(ValueError, match=message):
            method.search(queries, 10)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be at least 1"):
            method.search(QUERIES, k)
    for k in (2.5, "10", None):
        with pytest.raises(TypeError):
            method.search(QUERIES, k)
    found = method.run.numpy(method.search(QUERIES, np.int32(10)))
    assert set(found[0].tolist()) == set(nearest("l2", QUERIES, BASE, 10)[0][0].tolist())


@every
def test_knobs_out_of_range_are_refused(name):
    method = made(name, BASE)
    for knob in cls(name).settings("knob"):
        good = getattr(method, knob)
        for value in (0, -1, 1.5, math.nan):
            method.configure(**{knob: value})
            with pytest.raises(ValueError, match=knob.replace("_", "[_ ]")):
                method.search(QUERIES, 10)
        method.configure(**{knob: "4"})
        with pytest.raises((ValueError, TypeError)):
            method.search(QUERIES, 10)
        if isinstance(good, int):  # more than there is means all
            method.configure(**{knob: 10**9})
            assert method.run.numpy(method.search(QUERIES, 10)).min() >= 0
        method.configure(**{knob: good})


@every
def test_params_out_of_range_are_refused(name):
    for param, setting in cls(name).settings("param").items():
        if isinstance(setting.default, bool):
            continue
        bad = {int: (-1, 0) if setting.default else (-1,), float: (-1.0, math.nan), str: ("nonsense", "")}[type(setting.default)]
        for value in bad:
            with pytest.raises(ValueError, match=param):
                made(name, BASE, "ip", **{param: value})


@every
def test_the_inputs_that_the_task_calls_bad_are_refused(name):
    task, case = VectorSearch(), Case("batch", {"batch": 7, "calls": 0})
    method = made(name, BASE)
    hidden = type("Hidden", (), {"queries": QUERIES})
    bad = task.bad_batches(case, hidden, method.run)
    assert len(bad) > 5
    for label, batch in bad.items():
        with pytest.raises((ValueError, TypeError)) as refused:
            task.call(method, batch, case)
        assert str(refused.value).strip(), label


def test_the_check_itself_rejects_a_method_that_skips_a_row_or_repeats_one(monkeypatch):
    exact = cls("exact")
    whole = exact.nearest

    def broken(change):
        monkeypatch.setattr(exact, "nearest", lambda self, queries, k: change(whole(self, queries, min(k + 1, self.rows))))
        with pytest.raises(AssertionError):
            check("exact", BASE, QUERIES, 10)

    broken(lambda found: found[:, 1:])
    broken(lambda found: found[:, [0, 0, *range(1, 9)]])
    broken(lambda found: found[:, :9])
