"""Outside libraries as methods: the right answers where they are there, a reason where they are not."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from effbench_implementations.search import (
    faiss_flat,
    faiss_hnsw,
    faiss_ivf,
    faiss_ivfpqfs,
    hnswlib_index,
    outside,
    scann_library,
    usearch_index,
)
from effbench_implementations.search.task import Given
from effbench_implementations.search.vectors import clustered, distances, nearest

from effbench import Run
from effbench.backends import get

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("l2", "ip", "cosine")
POINTS = clustered(np.random.default_rng(7), 2200, 16, centers=30, rank=12, spread=1.0, noise=0.15)
BASE, QUERIES = POINTS[:2000], POINTS[2000:]
SMALL = {"partitions": 20}
ARMS = [  # class, params, knobs of little and of much work, recall that much work must reach
    (faiss_flat.FaissFlat, {}, {}, {}, 1.0),
    (faiss_ivf.FaissIvf, SMALL, {"leaves": 1}, {"leaves": 20}, 1.0),
    (faiss_ivfpqfs.FaissIvfPqFastScan, SMALL, {"leaves": 1, "factor": 1}, {"leaves": 20, "factor": 200}, 1.0),
    (faiss_hnsw.FaissHnsw, {"links": 8}, {"ef": 10}, {"ef": 400}, 0.99),
    (hnswlib_index.Hnswlib, {"links": 8}, {"ef": 10}, {"ef": 400}, 0.99),
    (usearch_index.Usearch, {"links": 8}, {"expansion": 10}, {"expansion": 400}, 0.99),
    (scann_library.Scann, SMALL, {"leaves": 1, "rescored": 10}, {"leaves": 20, "rescored": 2000}, 1.0),
    (scann_library.ScannSoar, SMALL, {"leaves": 1, "rescored": 10}, {"leaves": 20, "rescored": 2000}, 0.99),
]


def here(cls):
    return not outside.missing(*cls.modules)


PRESENT = [pytest.param(*arm, id=arm[0].name, marks=pytest.mark.skipif(not here(arm[0]), reason="not installed")) for arm in ARMS]
CLASSES = [pytest.param(*arm.values[:2], id=arm.id, marks=arm.marks) for arm in PRESENT]


def built(cls, metric="l2", base=BASE, **settings):
    method = cls(**settings)
    method.run = run = Run(backend=get("native"), seed=3)
    given = Given(base, metric, 10, None)
    assert method.skip(given) == ""
    method.build(given, run)
    return method


def recall(ids, truth):
    return np.mean([len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist())]) / truth.shape[1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("cls, params, little, much, reach", PRESENT)
def test_much_work_is_nearly_exact_and_little_work_is_less(cls, params, little, much, reach, metric):
    truth = nearest(metric, QUERIES, BASE, 10)[0]
    method = built(cls, metric, **params)
    values = []
    for knobs in (little, much):
        method.configure(**knobs)
        ids = method.search(QUERIES, 10)
        assert ids.shape == (200, 10) and ids.dtype == np.int64
        assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in ids)
        values.append(recall(ids, truth))
    assert values[1] >= reach - 1e-3  # the libraries round otherwise than we do
    assert values[0] < 0.98 or not little
    wrong = nearest(metric, -QUERIES, BASE, 10)[0]
    assert recall(wrong, truth) < 0.5, "the oracle rejects the farthest rows"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("cls, params", CLASSES)
def test_what_is_saved_answers_the_same_and_one_query_as_a_batch(cls, params, metric, tmp_path):
    method = built(cls, metric, **params)
    batch = method.search(QUERIES, 10)
    single = np.concatenate([method.search(q[None], 10) for q in QUERIES[:30]])
    assert np.mean(np.sort(single) == np.sort(batch[:30])) > 0.97
    method.save(tmp_path)
    assert method.folder_bytes(tmp_path) > BASE.nbytes
    assert [path.name for path in tmp_path.iterdir()] == ["index.npz"]
    if issubclass(cls, scann_library.Scann):  # its reader needs a process without the other libraries
        np.savez(tmp_path / "material.npz", base=BASE, queries=QUERIES)
        script = LOAD.format(root=str(ROOT), folder=str(tmp_path), cls=cls.__name__, metric=metric, params=params)
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        np.testing.assert_array_equal(np.load(tmp_path / "answer.npy"), batch)
        return
    again = cls(**params)
    again.run = method.run
    again.load(tmp_path, Given(BASE, metric, 10, None))
    np.testing.assert_array_equal(again.search(QUERIES, 10), batch)


LOAD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from effbench.plan.origins import mount, own_origin
mount(own_origin())
import numpy as np
from effbench import Run
from effbench.backends import get
from effbench_implementations.search import scann_library
from effbench_implementations.search.task import Given
folder = Path({folder!r})
material = np.load(folder / "material.npz")
method = scann_library.{cls}(**{params!r})
method.run = Run(backend=get("native"))
method.load(folder, Given(material["base"], {metric!r}, 10, None))
np.save(folder / "answer.npy", method.search(material["queries"], 10))
"""


@pytest.mark.skipif(not here(scann_library.Scann), reason="not installed")
def test_scann_refuses_what_would_crash_or_unpickle(tmp_path, monkeypatch):
    method = built(scann_library.Scann, **SMALL)
    method.save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "usearch", object())
        with pytest.raises(RuntimeError, match="usearch"):
            method.load(tmp_path, Given(BASE, "l2", 10, None))
    with np.load(tmp_path / "index.npz") as file:
        np.savez(tmp_path / "index.npz", **{"scann_docids.pkl": np.zeros(1, np.uint8)}, **file)
    with pytest.raises(ValueError, match=r"scann_docids\.pkl"):
        method.load(tmp_path, Given(BASE, "l2", 10, None))


@pytest.mark.parametrize("cls, params", CLASSES)
def test_a_seed_reproduces(cls, params):
    first, second = (built(cls, **params).search(QUERIES, 10) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("cls, params", CLASSES)
def test_missing_answers_are_minus_one_and_nothing_is_named_twice(cls, params):
    rng = np.random.default_rng(0)
    base = np.repeat(rng.standard_normal((60, 8)), 2, axis=0).astype(np.float32)  # duplicates, 120 rows
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    method = built(cls, "l2", base, **params)
    for queries in (base[:7] + 0.01, base[:1] + 0.01):
        ids = method.search(queries, 150)
        assert ids.shape == (len(queries), 150)
        assert ids.min() >= -1 and ids.max() < 120 and (ids[:, 120:] == -1).all()
        for row in ids:
            assert len(set(row[row >= 0])) == (row >= 0).sum() > 0
    first = method.search(base[::2], 2)
    assert (distances("l2", base[::2], base, first[:, :1]) < 0.3).mean() > 0.5


@pytest.mark.parametrize("cls, params", CLASSES)
def test_knobs_and_params_out_of_range_are_an_error(cls, params):
    method = built(cls, **params)
    for name in cls.settings("knob"):
        method.configure(**{name: 0})
        with pytest.raises(ValueError, match=name):
            method.search(QUERIES, 10)
        method.configure(**{name: 10})
    for name in {"partitions", "links", "construction"} & set(cls.settings("param")):
        with pytest.raises(ValueError, match=name):
            built(cls, **{name: 0})


def test_a_missing_library_is_a_reason_and_never_an_exception(monkeypatch):
    def broken(name, package=None):
        if "." in name:
            raise ModuleNotFoundError(f"No module named '{name.split('.')[0]}'")
        return None

    monkeypatch.setattr(importlib.util, "find_spec", broken)
    for cls, *_ in ARMS:
        method = cls()
        method.run = Run(backend=get("native"))
        reason = method.skip(Given(BASE, "l2", 10, None))
        assert "is not installed" in reason and "effbench[search]" in reason


def test_what_a_library_cannot_do_is_a_reason():
    uneven = Given(BASE * np.linspace(1, 2, len(BASE), dtype=np.float32)[:, None], "l2", 10, None)
    for cls, given, words in (
        (scann_library.ScannSoar, uneven, "differ in length"),
        (scann_library.Scann, Given(BASE[:50], "l2", 10, None), "100 rows"),
        (faiss_ivfpqfs.FaissIvfPqFastScan, Given(BASE[:, :15], "l2", 10, None), "multiple of 2"),
    ):
        method = cls()
        method.run = Run(backend=get("native"))
        assert words in method.skip(given) or not here(cls)
        method.run = Run(backend=get("native"), dtype="bfloat16")
        assert "float32" in method.skip(given)


@pytest.mark.skipif(not here(scann_library.Scann), reason="not installed")
def test_vectors_of_unlike_length_are_searched_by_their_distance():
    base = BASE * np.linspace(0.5, 2, len(BASE), dtype=np.float32)[:, None]
    method = built(scann_library.Scann, "l2", base, **SMALL)
    assert not method.inner and built(scann_library.Scann, "l2", **SMALL).inner
    method.configure(leaves=20, rescored=2000)
    assert recall(method.search(QUERIES, 10), nearest("l2", QUERIES, base, 10)[0]) > 0.995


@pytest.mark.skipif(not here(faiss_flat.FaissFlat), reason="not installed")
def test_the_flat_index_switches_to_matrix_products_from_six_queries_on():
    import faiss

    method = built(faiss_flat.FaissFlat)
    limit = faiss.cvar.distance_compute_blas_threshold
    assert limit in (6, 6 * 16)
    built(faiss_flat.FaissFlat)  # a second index in the process sets the same
    assert faiss.cvar.distance_compute_blas_threshold == limit
    ids = [method.search(QUERIES[:count], 10)[0].tolist() for count in (1, 5, 6, 200)]
    assert all(a == b for a, b in pairwise(ids))


@pytest.mark.skipif(not here(faiss_ivf.FaissIvf), reason="not installed")
def test_work_is_counted():
    for cls, knobs in ((faiss_ivf.FaissIvf, {"leaves": 20}), (faiss_ivfpqfs.FaissIvfPqFastScan, {"leaves": 20, "factor": 3})):
        method = built(cls, **SMALL)
        method.configure(**knobs)
        method.run._counting, method.run._counts = True, {}
        method.search(QUERIES, 10)
        assert method.run._counts == {"queries": 200, "points": 200 * 2000}
        flops = method.flops("serve", None, method.run._counts)
        scanned = 200 * 2000 if cls is faiss_ivf.FaissIvf else 200 * (16 + 30)
        assert flops.executed == 2 * 16 * (200 * 20 + scanned)
    graph = built(faiss_hnsw.FaissHnsw, links=8)
    graph.run._counting, graph.run._counts = True, {}
    graph.search(QUERIES, 10)
    assert 200 * 40 < graph.run._counts["distances"] < 200 * 2000
