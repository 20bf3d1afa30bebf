"""The task: data that is neither too easy nor leaked, batches that cover the queries, and a score that cannot be fooled."""

import dataclasses

import numpy as np
import pytest
from effbench_implementations.search.sets import SAMPLE, draw
from effbench_implementations.search.task import Given, Hidden, K, VectorSearch, asked, quality
from effbench_implementations.search.vectors import clustered, distances, nearest

from effbench import Case, Data, Run, Wrong

BATCH, SINGLE = VectorSearch.cases[:2]
SMALL = Data("clustered", {**VectorSearch.data[0].args, "n": 900, "d": 16, "rank": 12, "centers": 9, "queries": 300})


@pytest.fixture(scope="module")
def material():
    task = VectorSearch()
    prepared = task.prepare(SMALL, "quick", 0, Run())
    return task, task.given(SMALL, "quick", 0, prepared), task.hidden(SMALL, "quick", 0, prepared)


def scored(material, ids, case=BATCH):
    task, given, hidden = material
    return task.score(None, given, hidden, case, [ids[rows] for rows in asked(case, len(hidden.queries))])


def truth(material, metric="l2"):
    _, given, hidden = material
    return nearest(metric, hidden.queries, given.base, K + 1)[0]


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_the_prepared_answer_is_brute_force(metric):
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((5000, 6), np.float32), rng.standard_normal((9, 6), np.float32)
    everything = distances(metric, queries, base, np.tile(np.arange(5000), (9, 1)))
    ids, true, farthest = nearest(metric, queries, base, 20)
    np.testing.assert_allclose(true, np.sort(everything, 1)[:, :20], rtol=1e-12)
    np.testing.assert_array_equal(ids, np.argsort(everything, 1)[:, :20])
    if metric != "cosine":
        np.testing.assert_allclose(farthest, everything.max(1))
    expected = {"l2": np.linalg.norm(queries[0] - base[3]), "ip": -queries[0] @ base[3]}
    expected["cosine"] = 1 + expected["ip"] / np.linalg.norm(queries[0]) / np.linalg.norm(base[3])
    assert everything[0, 3] == pytest.approx(expected[metric], rel=1e-5)


def test_exact_answers_in_any_order_score_one(material):
    ids = truth(material)[:, :K]
    for answer in (ids, ids[:, ::-1], ids.astype(np.int32)):
        for case, count in ((BATCH, 300), (SINGLE, 200)):
            result = scored(material, answer, case)
            assert all(len(value) == count for value in result.values())
            assert result["recall@10"].min() == result["strict-recall@10"].min() == 1
            assert result["relative-error"].max() < 1e-12


def test_one_wrong_neighbour_costs_a_tenth_and_a_tie_costs_nothing(material):
    _, given, hidden = material
    ids = truth(material)
    far = nearest("ip", -hidden.queries, given.base, 1)[0]
    result = scored(material, np.concatenate([ids[:, : K - 1], far], axis=1))
    np.testing.assert_allclose(result["recall@10"], 0.9)
    assert (result["relative-error"] > 0).all()
    shifted = scored(material, ids[:, 1:])  # off by one: the nearest is missing, the eleventh taken in
    assert 0.85 < shifted["strict-recall@10"].mean() < 0.91
    assert (shifted["recall@10"] >= shifted["strict-recall@10"]).all()
    doubled = dataclasses.replace(given, base=np.concatenate([given.base, given.base]))
    task = material[0]
    twins = [(ids[:, :K] + 900)[rows] for rows in asked(BATCH, 300)]
    assert task.score(None, doubled, hidden, BATCH, twins)["strict-recall@10"].min() == 1


def test_missing_answers_are_misses_as_bad_as_the_farthest_row(material):
    ids = truth(material)[:, :K].copy()
    ids[:, 4:] = -1
    result = scored(material, ids)
    np.testing.assert_allclose(result["recall@10"], 0.4)
    _, _, hidden = material
    best = hidden.distances[:, :K].sum(1)
    np.testing.assert_allclose(
        result["relative-error"], (hidden.distances[:, :4].sum(1) + 6 * hidden.farthest) / best - 1, rtol=1e-6
    )
    nothing = scored(material, np.full((300, K), -1))
    assert nothing["recall@10"].max() == 0 and np.isfinite(nothing["relative-error"]).all()


def test_inner_products_of_any_sign_are_judged():
    rng = np.random.default_rng(0)
    base, queries = rng.standard_normal((50, 4)) + 3, -np.abs(rng.standard_normal((6, 4))) - 1  # every inner product is negative
    ids, true, farthest = nearest("ip", queries, base, 50)
    assert (true > 0).any()
    good = quality("ip", queries, base, ids[:, :K], true, farthest)
    bad = quality("ip", queries, base, ids[:, -K:], true, farthest)
    assert good["recall@10"].min() == 1 and good["relative-error"].max() < 1e-12
    assert bad["recall@10"].max() == 0 and bad["relative-error"].min() > 0


def test_answers_that_break_the_contract_are_wrong(material):
    good = truth(material)[:, :K]
    twice = good.copy()
    twice[7, 3] = twice[7, 0]
    beyond, below = good.copy(), good.copy()
    beyond[0, 0], below[0, 0] = 900, -2
    for bad, words in [
        (twice, "name a row twice"), (beyond, "900"), (below, "-2"), (good[:, :9], "shape"),
        (good.astype(np.float64), "type float64"),
        (good.astype(np.uint64), "type uint64"), (good.astype(np.int16), "type int16"), (good[:, :, None], "shape"),
    ]:  # fmt: skip
        with pytest.raises(Wrong, match=words):
            scored(material, bad)
    task, given, hidden = material
    with pytest.raises(Wrong, match="outputs"):
        task.score(None, given, hidden, BATCH, [good[:256]])


def test_batches_differ_have_one_size_and_cover_the_queries():
    for count in (258, 300, 768, 1000):
        rows = asked(BATCH, count)
        assert len(rows) >= 3 and {len(part) for part in rows} == {256}
        assert len({part[0] for part in rows}) == len(rows)
        assert set(np.concatenate(rows).tolist()) == set(range(count))
    assert [part.tolist() for part in asked(SINGLE, 1000)] == [[i] for i in range(200)]
    assert len(asked(Case("few", {"batch": 1, "calls": 200}), 20)) == 20
    with pytest.raises(ValueError, match="at least 258"):
        asked(BATCH, 257)


def test_a_method_sees_neither_queries_nor_answers(material):
    _, given, hidden = material
    assert {field.name for field in dataclasses.fields(Given)} == {"base", "metric", "k", "sample_queries"}
    assert given.sample_queries.shape == (SAMPLE, 16) and given.k == K
    everything = np.concatenate([given.base, hidden.queries, given.sample_queries])
    assert len(np.unique(everything, axis=0)) == len(everything)
    assert isinstance(hidden, Hidden) and hidden.distances.shape == (300, 100)


def test_clusters_overlap_as_learned_embeddings_do():
    """Mean cosine of the first and tenth neighbour about .8 and .7, of a median pair near 0; separated clusters are unlike that."""

    def neighbours(spread):
        points = clustered(np.random.default_rng(0), 20200, 64, centers=200, rank=48, spread=spread, noise=0.15)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, rtol=1e-5)
        cosine = np.sort(points[20000:] @ points[:20000].T, axis=1)
        return cosine[:, -1].mean(), cosine[:, -10].mean(), np.median(cosine)

    first, tenth, median = neighbours(1.0)
    assert 0.65 < tenth < first < 0.88 and abs(median) < 0.1
    assert neighbours(0.1)[1] > 0.9


@pytest.mark.parametrize(
    "change", [{"rank": 200}, {"centers": 0}, {"n": 5}, {"queries": 0}, {"metric": "hamming"}, {"spread": -1.0}]
)
def test_data_that_cannot_be_made_is_refused(change):
    with pytest.raises(ValueError):
        draw(Data("clustered", {**SMALL.args, **change}), "quick", 0)
