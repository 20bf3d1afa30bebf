"""Exact search and the interface: answers equal brute force in float64, and nothing wrong comes in unnoticed."""

import numpy as np
import pytest
import torch
from effbench_implementations.search import exact, exact_jax, ivf, selection, vectors
from effbench_implementations.search.task import Given, VectorIndex, VectorSearch
from effbench_implementations.search.vectors import distances, nearest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench import Case, Run
from effbench.backends import get
from effbench.run.exercise import exercise

METRICS = ("l2", "ip", "cosine")


def built(cls, base, metric="l2", seed=0, **settings):
    method = cls(**settings)
    method.run = run = Run(backend=get(cls.backend), seed=seed)
    material = Given(base, metric, 10, None)
    assert method.skip(material) == ""
    method.build(material, run)
    return method


def answer(method, queries, k):
    return method.run.numpy(method.search(queries, k))


def exactly_right(metric, queries, base, ids, k):
    """Whether every answer is a set of k distinct rows none of which is farther than the true k-th, up to float32 rounding."""
    k = min(k, len(base))
    found = distances(metric, queries, base, ids[:, :k])
    _, true, _ = nearest(metric, queries, base, k)
    distinct = all(len(set(row)) == k for row in ids[:, :k].tolist())
    scale = np.abs(true).max() + np.abs(found).max()
    return distinct and bool((np.sort(found, 1) <= true + 2e-6 * scale).all())


@pytest.mark.parametrize("cls", [exact.Exact, exact_jax.ExactJax])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_brute_force_across_blocks_and_chunks(cls, metric, monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", 512)
    monkeypatch.setattr(exact, "SCRATCH", 8 * 1024)
    monkeypatch.setattr(exact_jax, "BLOCK", 512)
    rng = np.random.default_rng(1)
    base, queries = rng.standard_normal((1777, 24), np.float32), rng.standard_normal((7, 24), np.float32)
    method = built(cls, base, metric)
    ids = answer(method, queries, 10)
    assert exactly_right(metric, queries, base, ids, 10)
    true = nearest(metric, queries, base, 10)[1]
    np.testing.assert_allclose(distances(metric, queries, base, ids), true, atol=3e-6)  # nearest first
    one = answer(method, queries[:1], 10)  # takes another kernel
    np.testing.assert_allclose(distances(metric, queries[:1], base, one), true[:1], atol=3e-6)


def tables(rows=70, width=6):
    """Small tables with many exact ties: coordinates from a coarse grid."""
    return st.tuples(st.integers(1, rows), st.integers(1, width), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())


def table(shape):
    rows, width, queries, seed, coarse = shape
    rng = np.random.default_rng(seed)
    draw = (
        (lambda n: rng.integers(-2, 3, (n, width)).astype(np.float32))
        if coarse
        else (lambda n: rng.standard_normal((n, width), np.float32))
    )
    return draw(rows), draw(queries)


@settings(max_examples=60, deadline=None)
@given(shape=tables(), k=st.integers(1, 20), metric=st.sampled_from(METRICS))
def test_exact_on_small_tables(shape, k, metric):
    base, queries = table(shape)
    ids = answer(built(exact.Exact, base, metric), queries, k)
    assert ids.shape == (len(queries), k)
    assert (ids[:, len(base) :] == -1).all() and (ids[:, : len(base)] >= 0).all()
    assert exactly_right(metric, queries, base, ids, k)


@settings(max_examples=40, deadline=None)
@given(shape=tables(), k=st.integers(1, 20), metric=st.sampled_from(METRICS), partitions=st.integers(1, 12))
def test_inverted_file_with_all_leaves_is_exact_on_small_tables(shape, k, metric, partitions):
    base, queries = table(shape)
    method = built(ivf.Ivf, base, metric, partitions=partitions, iterations=3, leaves=partitions)
    ids = answer(method, queries, k)
    assert (ids[:, len(base) :] == -1).all() and (ids[:, : len(base)] >= 0).all()
    assert exactly_right(metric, queries, base, ids, k)


@pytest.mark.parametrize("shape", [(1, 3, 2, 0, False), (40, 5, 3, 1, True), (300, 4, 2, 2, True)])
@pytest.mark.parametrize("metric", METRICS)
def test_exact_jax_on_small_tables(shape, metric):
    base, queries = table(shape)
    ids = answer(built(exact_jax.ExactJax, base, metric), queries, 12)
    assert (ids[:, len(base) :] == -1).all()
    assert exactly_right(metric, queries, base, ids, 12)


@pytest.mark.parametrize("metric", METRICS)
def test_the_answer_by_torch_is_the_answer_by_numpy(metric, monkeypatch):
    """In blocks that do not divide the table; what a GPU is given is the same program."""
    base, queries = table((300, 7, 20, 5, True))
    monkeypatch.setattr(vectors, "LARGE", 64 * len(queries))
    for depth in (1, 10, 300):
        here, there = nearest(metric, queries, base, depth), nearest(metric, queries, base, depth, "cpu")
        np.testing.assert_allclose(there[1], here[1], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(there[2], here[2], rtol=1e-12)
        assert all(set(a) == set(b) for a, b in zip(here[0], there[0])) or len(np.unique(here[1])) < here[1].size


def test_the_oracle_rejects_a_wrong_sign_duplicates_and_an_answer_one_off():
    base, queries = table((200, 5, 4, 3, False))
    ids = nearest("l2", queries, base, 11)[0]
    assert exactly_right("l2", queries, base, ids[:, :10], 10)
    farthest = nearest("ip", -queries, base, 10)[0]
    assert not exactly_right("ip", queries, base, farthest, 10)
    assert not exactly_right("l2", queries, base, ids[:, 1:], 10)
    assert not exactly_right("l2", queries, base, np.repeat(ids[:, :5], 2, axis=1), 10)


@pytest.mark.parametrize("cls", [exact.Exact, exact_jax.ExactJax, ivf.Ivf])
def test_a_common_offset_does_not_reorder_neighbours(cls):
    """|x|^2/2 - <q,x> alone loses all digits here: squared norms are 1e8 times the squared distances."""
    rng = np.random.default_rng(0)
    base = (1000 + 0.1 * rng.standard_normal((500, 16))).astype(np.float32)
    queries = (1000 + 0.1 * rng.standard_normal((5, 16))).astype(np.float32)
    settings = {"partitions": 8, "leaves": 8} if cls is ivf.Ivf else {}
    np.testing.assert_array_equal(answer(built(cls, base, **settings), queries, 5), nearest("l2", queries, base, 5)[0])
    naive = np.argsort(0.5 * (base**2).sum(1) - queries @ base.T, axis=1)[:, :5]
    assert (naive != nearest("l2", queries, base, 5)[0]).any(), "the trap must be a trap"


def test_selection_by_chunk_minima_equals_a_sort_and_needs_as_many_chunks_as_entries():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.permutation(4 * 640).astype(np.float32).reshape(4, 640))
    scores[0, 100:640:20] -= 5000  # several winners in one chunk
    minima = scores.view(4, selection.CHUNK, 20).amin(1)
    first = torch.arange(0, 4 * 640, 640)[:, None] + torch.arange(20)
    values, places = selection.smallest(scores, minima, first, 20, 13)
    torch.testing.assert_close(values.sort(1).values, scores.sort(1).values[:, :13])
    torch.testing.assert_close(scores.view(-1)[places], values)
    few = minima.topk(3, largest=False).indices  # a broken variant: too few chunks
    candidates = scores.view(4, 32, 20).transpose(1, 2).gather(1, few[:, :, None].expand(-1, -1, 32)).reshape(4, -1)
    assert (candidates.topk(13, largest=False).values.sort(1).values != scores.sort(1).values[:, :13]).any()


METHODS = [(exact.Exact, {}), (exact_jax.ExactJax, {}), (ivf.Ivf, {"partitions": 4, "leaves": 4})]


@pytest.mark.parametrize(("cls", "settings"), METHODS, ids=lambda value: getattr(value, "name", ""))
def test_bad_input_is_refused(cls, settings):
    base = np.random.default_rng(0).standard_normal((30, 4), np.float32)
    for bad, words in [
        (base[:0], "empty"), (base[:, :0], "empty"), (base[0], r"\[n, d\]"), (np.full((3, 4), "a"), "real numbers"),
        (base + 1j, "real numbers"), (base * np.float32(1e20), "too large"), (base * np.float32(1e-30), "too small"),
        (np.where(np.eye(30, 4), np.nan, base), "row 0"), (np.where(np.eye(30, 4) > 0, np.inf, base), "NaN, infinity"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            built(cls, bad, **settings)
    with pytest.raises(ValueError, match="unknown metric 'L2'"):
        built(cls, base, "L2", **settings)
    method = built(cls, base, **settings)
    put = method.run.put
    for queries, words in [
        (base[:2, :3], "4 dimensions"), (base[0], r"\[n, d\]"), (put(base[0]), "4 dimensions"),
        (put(base[:2] * np.float32(np.nan)), "NaN"),
        (np.where(base[:2] > 0, np.inf, 1), "infinity"), (base[:2].astype(np.float64) * 1e200, "too large"),
        ([["a"] * 4], "real numbers"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            method.search(queries, 3)
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be"):
            method.search(base[:2], k)
    with pytest.raises(TypeError):
        method.search(base[:2], 2.5)


@pytest.mark.parametrize(("cls", "settings"), METHODS, ids=lambda value: getattr(value, "name", ""))
def test_unusual_input_is_answered(cls, settings):
    rng = np.random.default_rng(0)
    base, queries = rng.integers(0, 255, (40, 6)), rng.integers(0, 255, (3, 6))
    truth = nearest("l2", queries.astype(np.float32), base.astype(np.float32), 5)
    method = built(cls, base.astype(np.uint8), **settings)
    for form in (queries, queries.astype(np.float64), np.asfortranarray(queries.astype(np.float32)), queries.tolist()):
        assert exactly_right("l2", queries, base, answer(method, form, 5), 5)
    strided = method.run.put(np.repeat(queries, 2, axis=1).astype(np.float32))[:, ::2]
    assert exactly_right("l2", queries, base, answer(method, strided, 5), 5)
    wide = built(cls, np.repeat(base, 2, axis=0)[::2].astype(np.int64), **settings)  # not contiguous
    np.testing.assert_allclose(distances("l2", queries, base, answer(wide, queries, 5)), truth[1], rtol=1e-6)
    assert answer(method, np.empty((0, 6)), 5).shape == (0, 5)
    assert (answer(method, queries, 50)[:, 40:] == -1).all()
    same = built(cls, np.ones((40, 6)), **settings)  # every row a tie
    assert all(len(set(row)) == 10 for row in answer(same, np.ones((3, 6)), 10).tolist())


def test_zero_vectors_have_a_cosine_of_zero():
    base = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    assert answer(built(exact.Exact, base, "cosine"), np.array([[5, 0.0]]), 3).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize(("cls", "settings"), METHODS, ids=lambda value: getattr(value, "name", ""))
def test_save_and_load_answer_alike(cls, settings, tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((200, 8), np.float32), rng.standard_normal((4, 8), np.float32)
    for metric in METRICS:
        method = built(cls, base, metric, **settings)
        method.save(tmp_path)
        again = cls(**settings)
        again.run = method.run
        again.load(tmp_path, Given(base, metric, 10, None))
        np.testing.assert_array_equal(answer(again, queries, 10), answer(method, queries, 10))
        assert method.flops("build", None, {}) == again.flops("build", None, {})


@pytest.mark.parametrize("cls", [exact.Exact, exact_jax.ExactJax])
def test_flops_count_the_padded_product(cls):
    base = np.zeros((100, 3), np.float32)
    base[:, 0] = np.arange(100)
    found = built(cls, base).flops("serve", Case("batch", {"batch": 5}), {"queries": 5})
    assert found.useful == found.dense == 2 * 5 * 100 * 3
    assert found.executed == 2 * 5 * 128 * 3


def test_torch_counts_the_flops_of_the_formula():
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((3000, 16), np.float32), rng.standard_normal((20, 16), np.float32)
    for cls, chosen in ((exact.Exact, {}), (ivf.Ivf, {"partitions": 32, "leaves": 5})):
        method = built(cls, base, **chosen)
        for count in (20, 1):
            batch = method.run.put(queries[:count])
            method.run._counting, method.run._counts = True, {}
            with FlopCounterMode(display=False) as counter:
                method.search(batch, 10)
            assert method.flops("serve", None, method.run._counts).executed == counter.get_total_flops()


def test_a_jax_trace_counts_the_flops_of_the_formula():
    from effbench.measure.flops import count

    base = np.random.default_rng(0).standard_normal((3000, 16), np.float32)
    method = built(exact_jax.ExactJax, base)
    batch = method.run.put(base[:20])
    expected = method.flops("serve", None, {"queries": 20}).executed
    assert count(lambda: method.search(batch, 10), "jax").executed == expected


def test_the_whole_trial_at_smoke_size():
    out = exercise(VectorSearch, exact.Exact)
    for case in ("batch-256", "one-by-one"):
        readings = next(value for key, value in out.items() if isinstance(key, tuple) and key[0] == case)
        assert readings["quality.recall@10"]["value"] == readings["quality.strict-recall@10"]["value"] == 1
        assert readings["quality.relative-error"]["value"] == pytest.approx(0, abs=1e-6)
        assert readings["quality.recall@10"]["n"] == (300 if case == "batch-256" else 200)


def test_the_interface_names_what_is_missing():
    method = VectorIndex()
    with pytest.raises(NotImplementedError, match="index"):
        method.build(Given(np.ones((2, 2)), "l2", 1, None), Run())
