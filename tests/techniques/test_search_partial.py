"""Selection by bins: its recall is the one known in advance, and the methods are right where they must be exact."""

import math

import numpy as np
import pytest
import torch
from effbench_implementations.search import partial_reduce as formulas
from effbench_implementations.search import tpu_knn, tpu_knn_jax
from effbench_implementations.search.task import Given, VectorSearch
from effbench_implementations.search.vectors import distances, nearest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench import Run
from effbench.backends import get
from effbench.run.exercise import exercise

METRICS = ("l2", "ip", "cosine")


def built(cls, base, metric="l2", **chosen):
    method = cls(**chosen)
    method.run = run = Run(backend=get(cls.backend))
    material = Given(base, metric, 10, None)
    assert method.skip(material) == ""
    method.build(material, run)
    return method


def answer(method, queries, k):
    return method.run.numpy(method.search(queries, k))


def limit(cells):
    """Standard errors that the largest of `cells` deviations stays within as often as one stays within three."""
    from statistics import NormalDist

    return -NormalDist().inv_cdf(0.00135 / cells)


def within(samples, expected, cells):
    error = samples.std(ddof=1) / math.sqrt(len(samples))
    return abs(samples.mean() - expected) <= limit(cells) * max(error, 1e-3 / math.sqrt(len(samples)))


def simulated(rng, rows, bins, k, kept, trials, deal=lambda rows, bins: np.arange(rows) % bins):
    """Share of the k best rows that survive, float [trials]; the neighbours of a query lie at random in the file."""
    found = np.empty(trials)
    bin_of = deal(rows, bins)
    for trial in range(trials):
        count = np.bincount(bin_of[rng.choice(rows, k, replace=False)], minlength=bins)
        found[trial] = np.minimum(count, kept).sum() / k
    return found


CELLS = [
    (300, 7, 10, 1),
    (300, 64, 10, 1),
    (300, 64, 40, 1),
    (300, 64, 40, 2),
    (301, 20, 60, 4),
    (1000, 128, 10, 1),
    (50, 50, 10, 1),
]


def test_the_formula_is_the_recall_of_a_simulation():
    rng = np.random.default_rng(3)
    rejected = 0
    for rows, bins, k, kept in CELLS:
        samples = simulated(rng, rows, bins, k, kept, 1500)
        assert within(samples, formulas.expected_recall(formulas.dealt(rows, bins), k, kept), len(CELLS)), (rows, bins, k, kept)
        if kept == 1:
            assert samples.mean() >= formulas.bound(bins, k) - 3 * samples.std() / math.sqrt(len(samples))
            rejected += not within(samples, formulas.bound(bins, k), len(CELLS))  # the bound taken for the value
    assert rejected >= 4


@pytest.mark.slow
def test_the_formula_on_many_cells():
    rng = np.random.default_rng(4)
    cells = [(n, bins, k, kept) for n in (1000, 10_007) for bins in (16, 100, 128, 999) for k in (2, 10, 100) for kept in (1, 2, 4)]
    for rows, bins, k, kept in cells:
        samples = simulated(rng, rows, bins, k, kept, 10_000)
        assert within(samples, formulas.expected_recall(formulas.dealt(rows, bins), k, kept), len(cells)), (rows, bins, k, kept)


def test_the_formula_at_its_ends_and_in_the_limit():
    assert formulas.expected_recall({1: 20}, 7) == 1
    assert formulas.expected_recall({20: 1}, 7) == pytest.approx(1 / 7)
    assert formulas.expected_recall({20: 1}, 7, kept=7) == 1
    many = formulas.expected_recall(formulas.dealt(10**7, 1000), 10)  # bins so large that places are independent
    assert many == pytest.approx(1000 / 10 * (1 - (1 - 1 / 1000) ** 10), abs=1e-6)
    assert formulas.dealt(10, 4) == {2: 2, 3: 2} and formulas.dealt(3, 8) == {1: 3}
    for wrong in ((0, 1), (21, 1), (5, 0)):
        with pytest.raises(ValueError):
            formulas.expected_recall({20: 1}, *wrong)
    for target in (0, -1, 1.01, math.nan):
        with pytest.raises(ValueError, match="recall target"):
            formulas.bins_for(100, 10, target)


def test_bins_are_those_of_xla_and_the_exact_formula_needs_half_of_them():
    cases = {
        (10**6, 10, 0.95): 256,
        (10**6, 10, 0.99): 1024,
        (10**6, 100, 0.95): 2048,
        (10**5, 100, 0.95): 3200,
        (100, 10, 0.9): 100,
    }
    for (rows, k, target), bins in cases.items():
        assert formulas.xla_bins(rows, k, target) == bins
        ours = formulas.bins_for(rows, k, target)
        assert formulas.expected_recall(formulas.dealt(rows, ours), k) >= target
        if rows > ours:
            assert formulas.expected_recall(formulas.dealt(rows, ours // 2), k) < target
    assert formulas.bins_for(10**6, 10, 0.95) == 128 and formulas.bins_for(10**6, 100, 0.95, kept=2) == 256


@pytest.mark.parametrize(("bins", "kept", "k"), [(32, 1, 10), (64, 1, 10), (256, 1, 10), (64, 2, 40), (100, 1, 20), (128, 3, 100)])
def test_recall_of_the_method_is_the_formula_on_independent_scores(bins, kept, k):
    """The base is the identity, so that a query is its own scores: independent, the neighbours at random places."""
    rows = 1000
    queries = np.random.default_rng(bins + k).standard_normal((600, rows), np.float32)
    method = built(tpu_knn.TpuKnn, np.eye(rows, dtype=np.float32), "ip", bins=bins, kept=kept)
    found = answer(method, queries, k)
    true = np.argpartition(-queries, k - 1, axis=1)[:, :k]
    hits = np.array([len(np.intersect1d(a, b)) for a, b in zip(found, true)]) / k
    assert within(hits, method.expected(k)["recall"], 6)
    if kept == 1:  # broken: twice as many bins as the method says
        assert not within(hits, formulas.expected_recall(formulas.dealt(rows, 2 * bins), k), 6)
    order = np.argsort(-queries, axis=1)
    assert (found[:, 0] == order[:, 0]).all(), "the best row of all is never lost"
    assert all(len(set(row)) == k for row in found.tolist())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kept", [1, 2])
def test_survivors_are_the_best_of_each_bin(metric, kept, monkeypatch):
    """Against a selection without blocks, groups or stretches; the limits are so low that all of them are crossed."""
    monkeypatch.setattr(tpu_knn, "CPU", {"queries": 3, "scores": 1 << 10, "minima": 1 << 8, "bins": 16})
    rng = np.random.default_rng(5)
    base, queries = rng.standard_normal((1111, 12), np.float32), rng.standard_normal((8, 12), np.float32)
    method = built(tpu_knn.TpuKnn, base, metric, bins=24, kept=kept)
    for part in (queries, queries[:1]):
        found = answer(method, part, 9)
        every = np.broadcast_to(np.arange(len(base)), (len(part), len(base)))
        true = distances(metric, part, base, every)
        for row, ids in enumerate(found):
            survivors = np.concatenate([np.arange(b, len(base), 24)[np.argsort(true[row, b::24])[:kept]] for b in range(24)])
            expected = survivors[np.argsort(true[row, survivors])[:9]]
            np.testing.assert_allclose(true[row, ids], true[row, expected], rtol=1e-5, atol=1e-6)


def tables():
    return st.tuples(st.integers(1, 90), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32 - 1), st.booleans())


@settings(max_examples=30, deadline=None)
@given(shape=tables(), k=st.integers(1, 20), metric=st.sampled_from(METRICS), kept=st.integers(1, 3))
def test_exact_where_each_row_has_a_bin_of_its_own(shape, k, metric, kept):
    rows, width, count, seed, coarse = shape
    rng = np.random.default_rng(seed)
    base, queries = (
        (rng.integers(-2, 3, (n, width)) if coarse else rng.standard_normal((n, width))).astype(np.float32) for n in (rows, count)
    )
    for cls, chosen in ((tpu_knn.TpuKnn, {"kept": kept}), (tpu_knn_jax.TpuKnnJax, {})):
        if cls is tpu_knn_jax.TpuKnnJax and seed % 8:  # compiles for every shape
            continue
        ids = answer(built(cls, base, metric, **chosen), queries, k)
        assert ids.shape == (count, k)
        few = min(k, rows)
        assert (ids[:, few:] == -1).all() and all(len(set(row[:few])) == few for row in ids.tolist())
        true = nearest(metric, queries, base, few)[1]
        got = distances(metric, queries, base, ids[:, :few])
        np.testing.assert_allclose(np.sort(got, 1), true, atol=2e-6 * (np.abs(true).max() + np.abs(got).max() + 1), rtol=1e-5)


def test_a_file_in_the_order_of_its_clusters_costs_no_recall():
    """Neighbours side by side in the file are in different bins; with bins of neighbouring rows they would collide."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 8)) * 5
    base = np.repeat(centres, 50, axis=0) + rng.standard_normal((2000, 8))
    queries = (centres + rng.standard_normal((40, 8))).astype(np.float32)
    base = base.astype(np.float32)
    true = nearest("l2", queries, base, 10)[0]
    method = built(tpu_knn.TpuKnn, base, bins=128)
    found = answer(method, queries, 10)
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, true)]) / 10 > method.expected(10)["recall"]
    contiguous = np.mean([len(np.unique(row // 16)) for row in true]) / 10  # the broken variant: row j in bin j // 16
    assert contiguous < 0.6


def test_duplicates_ties_and_zero_vectors():
    base = np.repeat(np.random.default_rng(1).standard_normal((40, 5), np.float32), 10, axis=0)
    found = answer(built(tpu_knn.TpuKnn, base), base[::10], 10)
    assert (found // 10 == np.arange(40)[:, None]).all()
    same = answer(built(tpu_knn.TpuKnn, np.ones((700, 3))), np.ones((2, 3)), 10)
    assert all(len(set(row)) == 10 and min(row) >= 0 for row in same.tolist())
    zeros = answer(built(tpu_knn.TpuKnn, np.zeros((20, 3)), "cosine"), np.ones((2, 3)), 20)
    assert all(sorted(row) == list(range(20)) for row in zeros.tolist())


def test_a_common_offset_does_not_reorder_neighbours():
    rng = np.random.default_rng(0)
    base = (1000 + 0.1 * rng.standard_normal((200, 16))).astype(np.float32)
    queries = (1000 + 0.1 * rng.standard_normal((5, 16))).astype(np.float32)
    for cls in (tpu_knn.TpuKnn, tpu_knn_jax.TpuKnnJax):
        np.testing.assert_array_equal(answer(built(cls, base), queries, 5), nearest("l2", queries, base, 5)[0])


def test_settings_that_make_no_sense_are_refused():
    base = np.random.default_rng(0).standard_normal((500, 4), np.float32)
    for chosen in ({"bins": -1}, {"kept": 0}):
        with pytest.raises(ValueError, match=r"bins must be 0 .* kept"):
            built(tpu_knn.TpuKnn, base, **chosen)
    with pytest.raises(ValueError, match="4 bins that keep 1 cannot answer k = 10"):
        built(tpu_knn.TpuKnn, base, bins=4)
    for cls in (tpu_knn.TpuKnn, tpu_knn_jax.TpuKnnJax):
        method = built(cls, base)
        method.configure(recall_target=1.5)
        with pytest.raises(ValueError, match="recall target must lie"):
            method.search(base[:2], 3)
        method.configure(recall_target=1.0)
        assert (answer(method, base[:9], 1)[:, 0] == np.arange(9)).all()
        with pytest.raises(ValueError, match="hold NaN"):
            method.search(np.full((2, 4), np.nan), 3)
        assert answer(method, base[:2], 600).shape == (2, 600)
        assert "skip" not in method.skip(Given(base, "l2", 10, None))
        method.run.dtype = "bfloat16"
        assert "float32 only" in method.skip(Given(base, "l2", 10, None))


def test_bins_follow_the_target_and_k_between_calls():
    base = np.random.default_rng(0).standard_normal((5000, 8), np.float32)
    method = built(tpu_knn.TpuKnn, base)
    queries = base[:20] + np.float32(0.01)
    assert method.bins_used(10) == 256
    method.configure(recall_target=0.999)
    assert method.bins_used(10) > 1000 and method.expected(10)["recall"] >= 0.999
    exact = nearest("l2", queries, base, 300)[0]
    for k in (1, 10, 300, 10):
        found = answer(method, queries, k)
        hits = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, exact[:, :k])])
        assert hits >= method.expected(k)["recall"] - 0.01
    assert "bins" in method.notes[0] and "XLA's bound" in method.notes[0]


def test_torch_counts_the_flops_of_the_formula():
    from torch.utils.flop_counter import FlopCounterMode

    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((3000, 16), np.float32), rng.standard_normal((20, 16), np.float32)
    for chosen in ({}, {"kept": 2, "bins": 64}):
        method = built(tpu_knn.TpuKnn, base, **chosen)
        for count in (20, 1):
            batch = method.run.put(queries[:count])
            method.run._counting, method.run._counts = True, {}
            with FlopCounterMode(display=False) as counter:
                method.search(batch, 10)
            assert method.flops("serve", None, method.run._counts).executed == counter.get_total_flops()


@pytest.mark.parametrize("cls", [tpu_knn.TpuKnn, tpu_knn_jax.TpuKnnJax])
def test_save_and_load_answer_alike(cls, tmp_path):
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((400, 8), np.float32), rng.standard_normal((4, 8), np.float32)
    for metric in METRICS:
        method = built(cls, base, metric)
        method.save(tmp_path)
        again = cls()
        again.run = method.run
        again.load(tmp_path, Given(base, metric, 10, None))
        np.testing.assert_array_equal(answer(again, queries, 10), answer(method, queries, 10))


def test_jax_says_that_it_sorts_here():
    method = built(tpu_knn_jax.TpuKnnJax, np.eye(30, dtype=np.float32))
    if next(iter(method.base.devices())).platform == "tpu":
        pytest.skip("on a TPU it does not")
    assert "sorts on a" in method.notes[0]
    tpu_knn_jax.BLOCK, before = 16, tpu_knn_jax.BLOCK
    try:
        rng = np.random.default_rng(0)
        base, queries = rng.standard_normal((75, 6), np.float32), rng.standard_normal((3, 6), np.float32)
        np.testing.assert_array_equal(answer(built(tpu_knn_jax.TpuKnnJax, base), queries, 7), nearest("l2", queries, base, 7)[0])
    finally:
        tpu_knn_jax.BLOCK = before


def test_the_cap_of_a_bin_counts_within_rows():
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 1.0, torch.inf]])
    bins = torch.tensor([[5, 5, 5, 9], [1, 2, 1, 1]])
    got = tpu_knn.best_of_each(scores, bins, 1)
    assert got.tolist() == [[torch.inf, 1, torch.inf, 0], [1, 1, torch.inf, torch.inf]]
    assert tpu_knn.best_of_each(scores, bins, 2)[0].tolist() == [torch.inf, 1, 2, 0]


def test_the_whole_trial_at_smoke_size():
    out = exercise(VectorSearch, tpu_knn.TpuKnn, data="clustered(n=2000, d=16, rank=8, queries=300)")
    for case in ("batch-256", "one-by-one"):
        readings = next(value for key, value in out.items() if isinstance(key, tuple) and key[0] == case)
        assert readings["quality.recall@10"]["value"] > 0.96
