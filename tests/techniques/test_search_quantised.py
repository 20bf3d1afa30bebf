"""4-bit codes: the loss is the one of the paper, the kernel computes its formula, lists hold every point, and what is saved stays."""

from itertools import pairwise

import numpy as np
import pytest
from effbench_implementations.search import anisotropic, lut16, partitions, pq, scann, soar
from effbench_implementations.search.task import Given, VectorSearch
from effbench_implementations.search.vectors import clustered, nearest
from effbench_implementations.shared import compiled

from effbench import Run
from effbench.backends import get
from effbench.run.exercise import exercise

POINTS = clustered(np.random.default_rng(7), 4200, 18, centers=40, rank=12, spread=1.0, noise=0.15)
BASE, QUERIES = POINTS[:4000], POINTS[4000:]
METRICS = ("l2", "ip", "cosine")
LEVELS = [-1, *range(lut16.best_level() + 1)]  # -1 is the fallback in numpy


def built(cls=scann.ScannReference, metric="l2", base=BASE, threads=1, **settings):
    method = cls(**{"iterations": 4, **({} if cls is pq.Pq else {"partitions": 32}), **settings})
    method.run = run = Run(backend=get("native"), seed=3, threads=threads)
    given = Given(base, metric, 10, None)
    assert method.skip(given) == ""
    method.build(given, run)
    return method


def found(method, queries=QUERIES, k=10, **knobs):
    method.configure(**knobs)
    return method.search(queries, k)


def recall(ids, truth):
    return np.mean([len(set(a) & set(b)) for a, b in zip(ids.tolist(), truth.tolist())]) / truth.shape[1]


# -- the loss ---------------------------------------------------------------------------------------------------------


def monte_carlo_eta(d, threshold, rng, draws=400_000):
    """Weights of the squared parallel and orthogonal error over random unit queries that score at least T with e_1."""
    along = rng.standard_normal(draws)
    rest = rng.standard_normal(draws)  # the component along one orthogonal direction
    length = np.sqrt(along**2 + rest**2 + rng.chisquare(d - 2, draws))
    kept = along / length >= threshold
    return ((along / length) ** 2)[kept].sum() / ((rest / length) ** 2)[kept].sum()


@pytest.mark.parametrize("d, threshold, exact, limit", [(32, 0.2, 2.94, 1.29), (100, 0.2, 5.95, 4.125), (100, 0.1, 2.54, 1.0)])
def test_eta_is_the_ratio_of_expected_squared_errors(d, threshold, exact, limit):
    measured = monte_carlo_eta(d, threshold, np.random.default_rng(0))
    assert anisotropic.eta_integral(threshold, d) == pytest.approx(exact, abs=0.01)
    assert anisotropic.eta_integral(threshold, d) == pytest.approx(measured, rel=0.02)
    assert anisotropic.eta_limit(threshold, d) == pytest.approx(limit, abs=0.01)
    assert anisotropic.eta_limit(threshold, d) != pytest.approx(measured, rel=0.1), "the oracle tells the limit from the integral"


def test_eta_behaves_at_the_ends():
    assert anisotropic.eta_integral(0.0, 50) == pytest.approx(1, abs=1e-6)  # every query counts: no direction is special
    values = anisotropic.eta_integral(np.linspace(0, 0.9, 20), 1536)
    assert np.isfinite(values).all() and (np.diff(values) > 0).all()
    assert anisotropic.eta_integral(0.3, 1) == 1 and anisotropic.eta_integral(0.3, 2) > 1
    short = anisotropic.weights(np.diag([0.0, 0.7, 1.0, 2.0]).astype(np.float32), 0.2, "integral", cosine=False)
    assert short[1] > short[2] > short[3] >= 1 and np.isfinite(short).all()


def problem(width=2, n=1500, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 12)).astype(np.float32)
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, directions, np.full(n, 5.0, np.float32), anisotropic.train(rows, width, 3, rng)


@pytest.mark.parametrize("width", [2, 12])
def test_refitting_the_codebook_lowers_the_loss_to_its_minimum(width):
    rows, directions, eta, book = problem(width)
    codes = lut16.encode(rows, directions, eta, book, 10)
    before = anisotropic.loss(rows, directions, eta, codes, book).sum()
    better = anisotropic.refit(rows, directions, eta, codes, book, steps=200)
    after = anisotropic.loss(rows, directions, eta, codes, better).sum()
    assert after < 0.99 * before
    for shift in np.random.default_rng(1).standard_normal((5, *book.shape)):
        assert anisotropic.loss(rows, directions, eta, codes, better + 0.01 * shift).sum() > after
    if width == 12:  # plain vector quantisation: c = (sum A)^-1 eta sum x
        for word in range(3):
            mine = codes[:, 0] == word
            matrix = sum(np.eye(12) + (eta[0] - 1.0) * np.outer(u, u) for u in directions[mine].astype(np.float64))
            np.testing.assert_allclose(better[0, :, word], np.linalg.solve(matrix, eta[0] * rows[mine].sum(0)), atol=2e-4)
            # The right-hand side with the orthogonal weight, as sometimes printed, is no minimum.
            broken = better.copy()
            broken[0, :, word] = np.linalg.solve(matrix, rows[mine].sum(0))
            assert anisotropic.loss(rows, directions, eta, codes, broken).sum() > after * 1.01


@pytest.mark.parametrize("level", LEVELS)
def test_coordinate_descent_never_raises_the_loss_and_nearly_finds_the_best_codes(level):
    rows, directions, eta, book = problem(4, n=150)  # 3 blocks: 4096 codes can be tried one by one
    losses = [
        anisotropic.loss(rows, directions, eta, lut16.encode(rows, directions, eta, book, rounds, level=level), book)
        for rounds in range(6)
    ]
    for less, more in zip(losses[1:], losses):
        assert (less <= more + 1e-5).all()
    every = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.uint8)
    words = lut16.decode(every, book)
    off = rows[:, None] - words
    best = ((off**2).sum(2) + 4.0 * np.einsum("ncd,nd->nc", off, directions) ** 2).min(1)
    assert np.mean(losses[-1] <= best + 1e-4) >= 0.9
    assert np.mean(losses[0] <= best + 1e-4) < 0.7, "the nearest codewords alone are not the best"


def test_without_weight_the_codes_are_the_nearest_and_all_levels_agree():
    rows, directions, _, book = problem()
    plain = lut16.encode(rows, None, None, book, 10)
    off = rows.reshape(len(rows), 6, 2, 1) - book
    np.testing.assert_array_equal(plain, (off**2).sum(2).argmin(2))
    for level in LEVELS:
        np.testing.assert_array_equal(lut16.encode(rows, directions, np.ones(len(rows)), book, 10, level=level), plain)
        weighted = lut16.encode(rows, directions, np.full(len(rows), 5.0), book, 10, level=level)
        assert np.mean(weighted == lut16.encode(rows, directions, np.full(len(rows), 5.0), book, 10)) > 0.999
    assert np.mean(weighted == plain) < 0.95


# -- the kernel -------------------------------------------------------------------------------------------------------


def formula(method, queries):
    """Scores float64 [q, places] of all places by decoding, and the most that rounding the tables may change each of them."""
    lists = method.lists
    q = (queries - method.mean).astype(np.float64)
    member = np.repeat(np.arange(len(lists.size)), -(-lists.size // 32) * 32)
    points = lut16.decode(lut16.unpack(lists.codes), lists.codebook.astype(np.float64))[:, : method.d]
    scores = q @ points.T + (q @ lists.centres.T.astype(np.float64))[:, member]
    if lists.bias is not None:
        scores -= lists.bias
    scores[:, lists.ids < 0] = -np.inf
    blocks, width, _ = lists.codebook.shape
    wide = np.pad(q, ((0, 0), (0, blocks * width - method.d))).reshape(len(q), blocks, width, 1)
    table = (wide * lists.codebook).sum(2)
    spread = np.ptp(table, axis=2)
    step = np.maximum(spread.max(1) / 255, spread.sum(1) / (65000 - blocks))
    return scores, blocks * step / 2


def right_by_the_formula(method, queries):
    """Whether answers are the best by `formula` and in its order, up to twice the rounding of the tables."""
    ids = found(method, queries, leaves=32)
    scores, error = formula(method, queries)
    by_row = np.empty((len(queries), method.rows))
    by_row[:, method.lists.ids[method.lists.ids >= 0]] = scores[:, method.lists.ids >= 0]
    mine, best = np.take_along_axis(by_row, ids, 1), -np.sort(-by_row, axis=1)[:, :10]
    allowed = (2 * error + 1e-5)[:, None]
    return bool((mine >= best - allowed).all() and (np.diff(mine, axis=1) <= allowed).all())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("width, d", [(2, 18), (3, 17), (1, 18)])
def test_the_kernel_ranks_by_the_formula_up_to_the_rounding_of_its_tables(level, metric, width, d):
    method = built(metric=metric, base=np.ascontiguousarray(BASE[:1500, :d]), rescoring="none", width=width, training=1000)
    method.searcher = lut16.Searcher(method.lists, l2=metric == "l2", level=level)
    assert right_by_the_formula(method, np.ascontiguousarray(QUERIES[:40, :d]))


@pytest.mark.skipif(lut16.best_level() < 0, reason="no C compiler")
def test_the_oracle_rejects_a_kernel_that_mixes_up_two_codewords(monkeypatch):
    method = built(base=BASE[:1500], rescoring="none", training=1000)
    assert right_by_the_formula(method, QUERIES[:40])
    broken = lut16.SOURCE.replace("((product[16 * j + c] - least", "((product[16 * j + (c ^ (j == 3))] - least")
    assert broken != lut16.SOURCE
    monkeypatch.setattr(lut16, "SOURCE", broken)
    method.searcher = lut16.Searcher(method.lists, l2=True)
    assert not right_by_the_formula(method, QUERIES[:40])


def test_all_levels_give_the_same_answers_bit_for_bit_and_the_fallback_nearly_so():
    for cls in (scann.ScannReference, soar.Soar):
        method = built(cls, leaves=6, rescored=30)
        answers = []
        for level in LEVELS:
            method.searcher = lut16.Searcher(method.lists, l2=True, level=level)
            answers.append(found(method))
        for other in answers[2:]:
            assert np.mean(other == answers[1]) > 0.999
        if len(answers) > 1:
            assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(answers[0].tolist(), answers[-1].tolist())]) > 0.98


def test_many_blocks_do_not_overflow_sixteen_bits():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((300, 1200)).astype(np.float32)
    base[:, ::2] *= 4
    queries = base[:20] + 0.1 * rng.standard_normal((20, 1200)).astype(np.float32)
    method = built(pq.Pq, "ip", base, width=1, rescoring="none", threshold=0.0, training=300)
    scores, error = formula(method, queries)
    ids = found(method, queries, k=1)
    by_row = scores[:, np.argsort(method.lists.ids)[-300:]]
    assert (by_row[np.arange(20), ids[:, 0]] >= by_row.max(1) - 2 * error - 1e-2).all()
    assert (ids[:, 0] == np.arange(20)).mean() > 0.9


def test_packing_is_undone_by_unpacking():
    rng = np.random.default_rng(0)
    codes, member = rng.integers(0, 16, (500, 6)).astype(np.uint8), rng.integers(0, 9, 500)
    member[member == 4] = 5  # an empty list
    packed, ids, first, size = lut16.pack(codes, member, np.arange(500), 9)
    flat = lut16.unpack(packed)
    np.testing.assert_array_equal(flat[ids >= 0][:, :6], codes[ids[ids >= 0]])
    assert not flat[:, 6:].any() and size[4] == 0 and size.sum() == 500
    for leaf in range(9):
        those = ids[first[leaf] * 32 : first[leaf] * 32 + size[leaf]]
        assert sorted(those) == np.flatnonzero(member == leaf).tolist()


# -- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [pq.Pq, scann.ScannReference, soar.Soar])
@pytest.mark.parametrize("metric", METRICS)
def test_all_leaves_and_all_rows_rescored_are_exact_and_less_is_less(cls, metric):
    truth = nearest(metric, QUERIES, BASE, 10)[0]
    method = built(cls, metric)
    few, many = ({}, {}) if cls is pq.Pq else ({"leaves": 1}, {"leaves": 32})
    assert recall(found(method, **many, rescored=4000), truth) == 1
    values = [recall(found(method, **many, rescored=r), truth) for r in (10, 20, 40, 400)]
    assert all(a <= b + 0.002 for a, b in pairwise(values)) and 0.3 < values[0] < 0.97
    if few:
        values = [recall(found(method, leaves=leaves, rescored=4000), truth) for leaves in (1, 2, 4, 8, 16)]
        assert all(a <= b for a, b in pairwise(values)) and 0.2 < values[0] < 0.97


def test_the_oracle_rejects_a_search_that_forgets_to_rescore():
    truth = nearest("l2", QUERIES, BASE, 10)[0]
    assert recall(found(built(rescoring="none"), leaves=32, rescored=4000), truth) < 0.97
    quantised = recall(found(built(rescoring="int8"), leaves=32, rescored=4000), truth)
    assert 0.93 < quantised <= 1


@pytest.mark.parametrize("metric", METRICS)
def test_every_point_lies_in_its_lists_and_with_spilling_in_exactly_two(metric):
    for kind, copies in (("none", 1), ("nearest", 2), ("orthogonal", 2)):
        method = built(soar.Soar, metric, spill=kind)
        ids, member = method.lists.ids, np.repeat(np.arange(32), -(-method.lists.size // 32) * 32)
        assert np.bincount(ids[ids >= 0], minlength=4000).tolist() == [copies] * 4000
        pairs = set(zip(ids[ids >= 0].tolist(), member[ids >= 0].tolist()))
        assert len(pairs) == copies * 4000, "a row stands twice in one list"
        answer = found(method, leaves=8, rescored=50)
        assert all(len(set(row)) == 10 for row in answer.tolist())


def test_spilling_takes_the_second_partition_of_least_loss():
    rows, rng = BASE[:300], np.random.default_rng(0)
    centres = partitions.kmeans(BASE, 20, 4, rng)
    first = partitions.assign(rows, centres)[0]
    residual = (rows - centres[first]).astype(np.float64)
    other = rows[:, None].astype(np.float64) - centres
    along = np.einsum("nd,ncd->nc", residual / np.linalg.norm(residual, axis=1, keepdims=True), other)
    for amplification in (0.0, 1.5, 4.0):
        loss = (other**2).sum(2) + amplification * along**2
        loss[np.arange(300), first] = np.inf
        chosen = partitions.spill(rows, centres, first, amplification)
        assert (loss[np.arange(300), chosen] <= loss.min(1) + 1e-5).all() and (chosen != first).all()
    naive = partitions.spill(rows, centres, first, 0.0)
    assert (naive == np.argsort((other**2).sum(2), axis=1)[:, 1]).mean() > 0.99
    assert (naive != partitions.spill(rows, centres, first, 1.5)).mean() > 0.1, "amplification changes nothing"


def test_anisotropic_codes_rank_better_and_reconstruct_worse():
    truth = nearest("ip", QUERIES, BASE, 10)[0]
    result = {}
    for loss in ("anisotropic", "reconstruction"):
        method = built(metric="ip", rescoring="none", loss=loss, width=3)
        ids, member = method.lists.ids, np.repeat(np.arange(32), -(-method.lists.size // 32) * 32)
        points = lut16.decode(lut16.unpack(method.lists.codes), method.lists.codebook)[:, :18] + method.lists.centres[member]
        error = ((points[ids >= 0] - BASE[ids[ids >= 0]]) ** 2).sum(1).mean()
        result[loss] = recall(found(method, leaves=32), truth), error
    assert result["anisotropic"][0] > result["reconstruction"][0] + 0.01
    assert result["anisotropic"][1] > result["reconstruction"][1]
    refitted = built(metric="ip", rescoring="none", codebooks="anisotropic", width=3)
    assert recall(found(refitted, leaves=32), truth) > result["reconstruction"][0]


@pytest.mark.parametrize("cls, settings", [(pq.Pq, {}), (scann.ScannReference, {"rescoring": "int8"}), (soar.Soar, {})])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_saved_answers_the_same(cls, settings, metric, tmp_path):
    method = built(cls, metric, **settings)
    method.save(tmp_path)
    with np.load(tmp_path / "index.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)
    again = cls(**settings)
    again.run = method.run
    again.load(tmp_path, Given(BASE, metric, 10, None))
    np.testing.assert_array_equal(found(again), found(method))


def test_batches_threads_and_single_queries_agree(monkeypatch):
    method, parallel = built(leaves=4, rescored=40), built(threads=3, leaves=4, rescored=40)
    batch = found(method)
    np.testing.assert_array_equal(found(parallel), batch)
    np.testing.assert_array_equal(np.concatenate([found(method, q[None]) for q in QUERIES[:20]]), batch[:20])
    monkeypatch.setattr(lut16, "BATCH", 7)
    np.testing.assert_array_equal(found(method), batch)


def test_counts_and_flops_agree_with_a_count_by_hand():
    method = built(leaves=3, rescored=40)
    method.run._counting, method.run._counts = True, {}
    method.search(QUERIES, 10)
    counts = method.run._counts
    q = (QUERIES - method.mean).astype(np.float64)
    ranking = q @ method.lists.centres.T - method.lists.centre_bias
    probed = np.argsort(-ranking, axis=1)[:, :3]
    points = method.lists.size[probed].sum()
    assert counts == {"queries": 200, "points": points, "rescored": 200 * 40, "distances": 200 * 32 + points + 200 * 40}
    flops = method.flops("serve", None, counts)
    assert flops.executed == 2 * 200 * 32 * 18 + 2 * 200 * 16 * 12 * 2 + 2 * 8000 * 18  # 9 blocks are padded to 12
    assert flops.other == counts["points"] * 12
    assert method.flops("build", None, {}).executed == 2 * 32 * 18 * (4 * 4000 + 4000)


@pytest.mark.parametrize("cls", [pq.Pq, scann.ScannReference, soar.Soar])
@pytest.mark.parametrize("metric", METRICS)
def test_odd_tables(cls, metric):
    """One row, duplicates, zeros, one dimension, k beyond the rows: distinct valid rows, -1 for the rest."""
    rng = np.random.default_rng(0)
    tables = [np.ones((1, 3)), np.zeros((50, 4)), np.tile(rng.standard_normal((2, 5)), (40, 1)), rng.standard_normal((70, 1))]
    for table in tables:
        base = table.astype(np.float32)
        method = built(cls, metric, base, **({"leaves": 32} if cls is not pq.Pq else {}))
        ids = found(method, np.concatenate([base[:3], np.zeros((1, base.shape[1]), np.float32)]), k=80, rescored=100)
        kept = min(80, len(base))
        assert (ids[:, :kept] >= 0).all() and (ids[:, kept:] == -1).all()
        assert all(len(set(row[:kept])) == kept for row in ids.tolist())


def test_settings_are_checked():
    for bad in ({"loss": "mse"}, {"eta": "x"}, {"rescoring": "half"}, {"codebooks": "x"}, {"width": 0}, {"partitions": 0}):
        with pytest.raises(ValueError):
            built(**bad)
    for bad in ({"threshold": 1.0}, {"threshold": -0.1}):
        with pytest.raises(ValueError, match="threshold"):
            built(**bad)
    with pytest.raises(ValueError, match="spill"):
        built(soar.Soar, spill="twice")
    with pytest.raises(ValueError, match="amplification"):
        built(soar.Soar, amplification=-1.0)
    for bad in ({"leaves": 0}, {"rescored": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            found(built(), **bad)


def test_without_a_compiler_numpy_does_the_work_and_the_record_says_so(monkeypatch):
    monkeypatch.setenv("EFFBENCH_NO_COMPILER", "1")
    compiled.library.cache_clear()
    try:
        assert "compiler" in lut16.reason() and lut16.best_level() == -1
        truth = nearest("l2", QUERIES, BASE, 10)[0]
        method = built(soar.Soar)
        method.run._counting, method.run._counts = True, {}
        assert recall(found(method, leaves=32, rescored=4000), truth) == 1
        assert method.run._counts["without_kernel"] == 1
    finally:
        compiled.library.cache_clear()


@pytest.mark.skipif(lut16.best_level() < 0, reason="no C compiler")
def test_the_library_is_kept_named_by_its_source_and_bad_source_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFBENCH_DATA", str(tmp_path))
    compiled.library.cache_clear()
    try:
        library, _ = compiled.library("one", "int one(void) { return 1; }")
        assert library.one() == 1
        assert compiled.library("one", "int one(void) { return 2; }")[0].one() == 2
        names = {path.name for path in (tmp_path / "compiled").iterdir()}
        assert len(names) == 2 and all(name.startswith("one-") and name.endswith(".so") for name in names)
        monkeypatch.setattr(compiled, "temporary_folder", compiled.data_folder)
        library, reason = compiled.library("bad", "int one(void) { return x; }")
        assert library is None and "x" in reason
        (tmp_path / "compiled").chmod(0o777)
        compiled.library.cache_clear()
        assert compiled.library("one", "int one(void) { return 1; }") == (None, "no folder that only this user can write into")
    finally:
        compiled.library.cache_clear()


@pytest.mark.parametrize("cls", [pq.Pq, scann.ScannReference, soar.Soar])
def test_runs_through_the_engine(cls):
    out = exercise(
        VectorSearch,
        cls,
        data="clustered(n=1500, d=16, rank=8, queries=300, centers=20)",
        **({} if cls is pq.Pq else {"partitions": 16}),
    )
    for case in ("batch-256", "one-by-one"):
        readings = out[case, ()]
        assert readings["quality.recall@10"]["value"] > 0.9
        assert readings["serve.flops"]["value"] > 0
