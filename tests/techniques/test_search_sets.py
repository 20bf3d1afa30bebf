"""Where base and queries come from: disjoint, from the right places, with known answers that point at the right rows."""

import struct

import numpy as np
import pytest
from effbench_implementations.search import sets
from effbench_implementations.search.sets import SAMPLE, draw
from effbench_implementations.search.task import K, VectorSearch, asked, reciprocal_rank
from effbench_implementations.search.vectors import nearest

from effbench import Data, DataError, Run
from effbench.plan.suite import parse_data

TASK = VectorSearch()
BATCH = TASK.cases[0]


def named(name, **args):
    return next(Data(name, {**data.args, **args}) for data in VectorSearch.data if data.name == name)


def test_fashion_mnist_rows_come_from_the_right_files(monkeypatch):
    rng = np.random.default_rng(0)
    files = {
        "train_images": rng.integers(0, 256, (50, 28, 28), np.uint8),
        "test_images": rng.integers(0, 256, (600, 28, 28), np.uint8),
    }
    monkeypatch.setattr(sets, "dataset", lambda name: files)
    made = draw(named("fashion-mnist-784", rows=40, queries=100), "quick", 0)
    assert made["base"].dtype == np.float32 and made["base"].shape == (40, 784) and made["base"].max() <= 1
    np.testing.assert_array_equal(np.round(made["base"] * 255), files["train_images"][:40].reshape(40, -1))
    np.testing.assert_array_equal(np.round(made["queries"] * 255), files["test_images"][:100].reshape(100, -1))
    np.testing.assert_array_equal(np.round(made["sample_queries"] * 255), files["test_images"][100:600].reshape(500, -1))
    with pytest.raises(ValueError, match="50 rows and 100 queries"):
        draw(named("fashion-mnist-784", rows=51, queries=100), "quick", 0)


# ---- glosses


@pytest.fixture
def glosses(monkeypatch):
    """3,000 random unit vectors; examples stand close to their row."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3000, 24))
    rows = rng.permutation(3000)
    near = vectors[rows] + 1.3 * rng.standard_normal((3000, 24))
    arrays = {"vectors": vectors, "example_vectors": near}
    arrays = {name: (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float16) for name, a in arrays.items()}
    arrays["example_rows"] = rows
    monkeypatch.setattr(sets, "dataset", lambda name: arrays)
    return arrays


def test_glosses_in_distribution_are_held_out_rows(glosses):
    made = draw(named("glosses-384", rows=2000, queries=300), "quick", 0)
    assert "answers" not in made and made["metric"] == "cosine"
    for name, part in (("base", slice(0, 2000)), ("queries", slice(2200, 2500)), ("sample_queries", slice(2500, 3000))):
        np.testing.assert_allclose(made[name], glosses["vectors"][part], atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(made[name], axis=1), 1, rtol=1e-6)  # half precision left them at 1 +- 3e-4
    with pytest.raises(ValueError, match="there are 2200 rows"):
        draw(named("glosses-384", rows=2201, queries=300), "quick", 0)


def test_examples_ask_for_rows_that_are_searched(glosses):
    made = draw(named("glosses-384", rows=2000, queries=300, ask="examples"), "quick", 0)
    assert made["answers"].shape == (300,) and made["answers"].max() < 2000 and len(made["sample_queries"]) == SAMPLE
    own = (made["queries"] * made["base"][made["answers"]]).sum(1)
    other = (made["queries"] * made["base"][np.roll(made["answers"], 1)]).sum(1)
    assert own.mean() > 0.4 and abs(other.mean()) < 0.1
    shared = {tuple(row) for row in made["queries"].round(5).tolist()} & {
        tuple(row) for row in made["sample_queries"].round(5).tolist()
    }
    assert not shared
    with pytest.raises(ValueError, match="only 1000 examples belong to these 1000 rows; 1500"):
        draw(named("glosses-384", rows=1000, queries=1000, ask="examples"), "quick", 0)
    with pytest.raises(ValueError, match="ask must be"):
        draw(named("glosses-384", ask="both"), "quick", 0)


def test_known_answers_are_scored_by_their_rank(glosses):
    data = named("glosses-384", rows=2000, queries=300, ask="examples")
    prepared = TASK.prepare(data, "quick", 0, Run())
    assert "base" not in prepared
    given, hidden = TASK.given(data, "quick", 0, prepared), TASK.hidden(data, "quick", 0, prepared)
    ids = nearest("cosine", hidden.queries, given.base, K)[0]
    scores = TASK.score(None, given, hidden, BATCH, [ids[rows] for rows in asked(BATCH, 300)])
    by_hand = [1 / (list(row).index(own) + 1) if own in row else 0 for row, own in zip(ids, hidden.answers)]
    np.testing.assert_allclose(scores["mrr@10"], by_hand)
    assert 0.2 < np.mean(by_hand) < 1 and scores["recall@10"].min() == 1
    backwards = TASK.score(None, given, hidden, BATCH, [ids[rows][:, ::-1] for rows in asked(BATCH, 300)])
    np.testing.assert_allclose(backwards["mrr@10"], by_hand)  # the order of an answer is free
    plain = named("glosses-384", rows=2000, queries=300)
    assert TASK.hidden(plain, "quick", 0, TASK.prepare(plain, "quick", 0, Run())).answers is None


def test_reciprocal_rank_with_misses_ties_and_missing_answers():
    base = np.array([[0.0], [1.0], [2.0], [2.0], [9.0]], np.float32)
    ids = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [-1, -1, 4, -1], [0, 1, 2, -1]])
    ranks = reciprocal_rank("l2", np.zeros((4, 1), np.float32), base, ids, np.array([1, 3, 4, 4]))
    np.testing.assert_allclose(ranks, [1 / 2, 1 / 3, 1, 0])  # a tie with another row does not push the right one back


# ---- files of one's own


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    base, queries = rng.integers(0, 256, (900, 6), np.uint8), rng.integers(0, 256, (700, 6), np.uint8)
    for name, array in (("base", base), ("queries", queries)):
        (tmp_path / f"{name}.u8bin").write_bytes(struct.pack("<II", *array.shape) + array.tobytes())
    return tmp_path


def test_a_file_with_its_own_queries(folder):
    data = parse_data(f"file(path='{folder}/base.u8bin', queries_path='{folder}/queries.u8bin', queries=50)", VectorSearch.data, "")
    made = draw(data, "quick", 0)
    assert made["base"].shape == (900, 6) and made["queries"].shape == (50, 6) and len(made["sample_queries"]) == SAMPLE
    assert made["metric"] == "l2" and made["base"].dtype == np.float32
    prepared = TASK.prepare(data, "quick", 0, Run())
    assert TASK.given(data, "quick", 0, prepared).metric == "l2"
    assert draw(named("file", **{**data.args, "rows": 70, "metric": "ip"}), "quick", 0)["base"].shape == (70, 6)
    with pytest.raises(DataError, match="701 are wanted"):
        draw(named("file", **{**data.args, "queries": 701}), "quick", 0)


def test_a_file_without_queries_lends_some_rows(folder):
    data = named("file", path=f"{folder}/base.u8bin", queries=100)
    made = draw(data, "quick", 0)
    assert [len(made[name]) for name in ("queries", "sample_queries", "base")] == [100, SAMPLE, 300]
    assert not np.array_equal(made["queries"], draw(data, "quick", 1)["queries"])
    np.testing.assert_array_equal(made["queries"], draw(data, "quick", 0)["queries"])
    assert len(draw(named("file", path=f"{folder}/base.u8bin", queries=100, rows=40), "quick", 0)["base"]) == 40
    with pytest.raises(DataError, match="too few for 800 queries"):
        draw(named("file", path=f"{folder}/base.u8bin", queries=800), "quick", 0)


def test_a_file_of_ann_benchmarks(folder):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(folder / "set.hdf5", "w") as out:
        out.attrs["distance"] = "angular"
        out["train"], out["test"] = rng.standard_normal((800, 5)), rng.standard_normal((600, 5))
        out["neighbors"], out["distances"] = np.zeros((600, 100), "i4"), np.zeros((600, 100), "f4")
    data = named("file", path=f"{folder}/set.hdf5", queries=300)
    prepared = TASK.prepare(data, "quick", 0, Run())
    assert TASK.given(data, "quick", 0, prepared).metric == "cosine"
    assert prepared["distances"].shape == (300, 100) and prepared["distances"][:, 0].min() >= 0


def test_a_file_has_to_be_named_and_there(folder):
    with pytest.raises(ValueError, match="name a file"):
        draw(named("file"), "quick", 0)
    with pytest.raises(DataError, match=r"absent\.fbin"):
        draw(named("file", path=f"{folder}/absent.fbin"), "quick", 0)


def test_a_path_is_made_absolute_where_the_command_was_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    data = parse_data("file(path='vectors.fbin', queries_path='~/q.fbin')", VectorSearch.data, "--data")
    assert data.args["path"] == str(tmp_path / "vectors.fbin") and data.args["queries_path"] == "/home/someone/q.fbin"
    assert parse_data("file()", VectorSearch.data, "--data").args["path"] == ""
