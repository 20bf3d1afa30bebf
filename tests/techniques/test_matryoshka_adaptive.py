"""Adaptive retrieval, funnels and cascades: where they must equal the plain method exactly, and broken ones that do not."""

import numpy as np
import pytest
import torch
from effbench_implementations.matryoshka import cascade as cascades
from effbench_implementations.matryoshka import examples, retrieval, tables
from effbench_implementations.matryoshka.adaptive_retrieval import AdaptiveRetrieval
from effbench_implementations.matryoshka.adaptive_scann import AdaptiveScann
from effbench_implementations.matryoshka.cascade import Cascade
from effbench_implementations.matryoshka.classification import AdaptiveClassification
from effbench_implementations.matryoshka.classification import Given as ToClassify
from effbench_implementations.matryoshka.funnel import Funnel
from effbench_implementations.matryoshka.retrieval import EmbeddingRetrieval, Given, exact
from effbench_implementations.matryoshka.single_shot import SingleShot
from effbench_implementations.matryoshka.single_size import SingleSize

from effbench import Data, Run, Wrong
from effbench.backends import get
from effbench.run.exercise import exercise

SIZES, N, Q, CLASSES = (2, 4, 8, 16), 700, 40, 6


@pytest.fixture(scope="module", autouse=True)
def prepared_once():
    """Training the encoders is the dear part, and the same for every arm."""
    with pytest.MonkeyPatch.context() as patch:
        for task in (EmbeddingRetrieval, AdaptiveClassification):
            original, known = task.prepare, {}

            def prepare(self, data, size, seed, run, original=original, known=known):
                if str(data) not in known:
                    known[str(data)] = original(self, data, size, seed, run)
                return known[str(data)]

            patch.setattr(task, "prepare", prepare)
        yield


def vectors(rows, seed, width=16):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, width)) * np.linspace(2, 0.3, width) * rng.uniform(0.2, 5, (rows, 1))).astype(np.float32)


def gallery():
    families = {"mrl": vectors(N, 0), "plain": vectors(N, 1), "separate": vectors(N, 2, sum(SIZES))}
    return Given(families, SIZES, {m: 100.0 * m for m in SIZES})


def queries():
    return {"mrl": vectors(Q, 3), "plain": vectors(Q, 4), "separate": vectors(Q, 5, sum(SIZES))}


def retriever(arm, embedding="mrl", **knobs):
    method = arm(embedding=embedding)
    method.run = Run(backend=get("torch"))
    method.build(gallery(), method.run)
    method.configure(**knobs)
    return method


def answer(method):
    return method.search({name: torch.from_numpy(array) for name, array in queries().items()}).numpy()


def compared(embedding, m):
    """What has to be compared at m numbers, float64: gallery and queries."""
    known, asked = gallery().gallery, queries()
    if embedding == "pca":
        known, asked = known["plain"].astype(float), asked["plain"].astype(float)
        mean = known.mean(0)
        directions = np.linalg.svd(known - mean, full_matrices=False)[2][:m].T
        return (known - mean) @ directions, (asked - mean) @ directions
    start = sum(size for size in SIZES if size < m) if embedding == "separate" else 0
    return known[embedding][:, start : start + m].astype(float), asked[embedding][:, start : start + m].astype(float)


def truth(embedding, m):
    return exact(*compared(embedding, m))


def is_exact(found, embedding, m):
    """The cosines of the found rows are the largest ones, in order; near ties may change places."""
    known, asked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in compared(embedding, m))
    cosine = asked @ known.T
    mine = np.take_along_axis(cosine, found, 1)
    np.testing.assert_allclose(mine, -np.sort(-cosine, 1)[:, : found.shape[1]], rtol=0, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in found.tolist())


# -- retrieval --------------------------------------------------------------------------------------------------------


def single_shot_is_the_largest_cosine(arm):
    for embedding in retrieval.EMBEDDINGS:
        for m in SIZES:
            is_exact(answer(retriever(arm, embedding, dims=m)), embedding, m)


def test_single_shot_is_exact_at_every_length():
    single_shot_is_the_largest_cosine(SingleShot)


def test_the_oracle_rejects_prefixes_that_are_not_scaled_anew():
    class Forgetful(SingleShot):
        def build(self, given, run):
            super().build(given, run)
            self.tables = {m: self.tables[16][:, :m].contiguous() for m in SIZES}

    with pytest.raises(AssertionError):
        single_shot_is_the_largest_cosine(Forgetful)


def whole_shortlists_are_exact(arm, embedding):
    for m in SIZES:
        is_exact(answer(retriever(arm, embedding, dims=m, shortlist=N)), embedding, 16)


class FullFunnel(Funnel):
    def counts(self):
        return [self.rows] * (len(self.used()) - 1) + [retrieval.K]


@pytest.mark.parametrize("embedding", retrieval.EMBEDDINGS)
@pytest.mark.parametrize("arm", [AdaptiveRetrieval, FullFunnel])
def test_a_shortlist_of_everything_is_exact_search(arm, embedding):
    whole_shortlists_are_exact(arm, embedding)


def test_the_oracle_rejects_reranking_by_the_short_prefix():
    class Short(AdaptiveRetrieval):
        def used(self):
            return (self.size(self.dims, "dims"),) * 2

    with pytest.raises(AssertionError):
        whole_shortlists_are_exact(Short, "mrl")


@pytest.mark.parametrize("arm", [AdaptiveRetrieval, Funnel])
def test_starting_at_full_length_is_single_shot(arm):
    is_exact(answer(retriever(arm, dims=0, shortlist=20)), "mrl", 16)


def test_a_shortlist_is_a_subset_and_its_order_is_that_of_the_full_length():
    found = answer(retriever(AdaptiveRetrieval, dims=4, shortlist=30))
    short = tables.scan(
        retriever(SingleShot).tables[4], torch.nn.functional.normalize(torch.from_numpy(queries()["mrl"][:, :4])), 30
    )
    known, asked = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (gallery().gallery["mrl"], queries()["mrl"]))
    for row, candidates, query in zip(found, short.numpy(), asked):
        scores = known[candidates] @ query
        np.testing.assert_array_equal(row, candidates[np.argsort(-scores)[:10]])


@pytest.mark.parametrize("rows", [10, 31, 32, 33, 700, 2000, 4113])
@pytest.mark.parametrize("count", [1, 10])
def test_the_scan_selects_exactly(rows, count, monkeypatch):
    monkeypatch.setattr(tables, "SCRATCH", 20_000)  # several blocks of queries
    table, asked = torch.from_numpy(vectors(rows, 6, 8)), torch.from_numpy(vectors(33, 7, 8))
    expected = (asked @ table.T).topk(count).indices
    np.testing.assert_array_equal(tables.scan(table, asked, count).numpy(), expected.numpy())


def test_prefixes_of_unit_vectors_are_shorter_and_scaled_ones_are_not():
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors(50, 8)))
    assert (unit[:, :8].norm(dim=1) < 1).all()
    table = retriever(SingleShot).tables[8]
    torch.testing.assert_close(table.norm(dim=1), torch.ones(N), rtol=0, atol=1e-6)


def test_the_funnel_halves_what_it_keeps():
    method = retriever(Funnel, dims=2, shortlist=200)
    assert method.used() == (2, 4, 8, 16) and method.counts() == [200, 100, 50, 10]
    assert retriever(Funnel, dims=2, shortlist=12).counts() == [12, 10, 10, 10]


def test_average_precision():
    relevant = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 0]], bool)
    possible = np.array([9, 9, 9, 9, 1])
    np.testing.assert_allclose(retrieval.average_precision(relevant, possible), [(1 + 2 / 3) / 4, 0, 1, 0.25 / 4, 1 / 2])


def senses(name):
    """Glosses, and examples that are noisy copies of theirs in the first dimensions; some glosses have two."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2000, 32)).astype(np.float16)
    rows = np.sort(rng.permutation(np.r_[:1500, :500]))
    asked = vectors[rows] + np.where(np.arange(32) < 16, 0.3, 1.5) * rng.standard_normal((2000, 32))
    return {"vectors": vectors, "labels": rows % 45, "example_vectors": asked.astype(np.float16), "example_rows": rows}


def test_examples_find_their_gloss(monkeypatch):
    monkeypatch.setattr(examples.effbench, "dataset", senses)
    data = Data("gloss-examples", {"rows": 2000, "d": 16})
    glosses, train, test = examples.pairs(data, "smoke")
    assert not set(train.labels) & set(test.labels), "a sense is asked for in training or in the test, never in both"
    np.testing.assert_array_equal(train.inputs[:, 1], glosses[train.labels])
    found = {}
    for embedding in ("mrl", "separate"):
        text, knobs = "gloss-examples(rows=2000, d=16)", ({"dims": 4}, {"dims": 0})
        result = exercise(EmbeddingRetrieval, SingleShot, data=text, cases=("batch-64",), knobs=knobs, embedding=embedding)
        found[embedding] = [result[("batch-64", tuple(knob.items()))]["quality.map@10"]["value"] for knob in knobs]
    assert all(full > short for short, full in found.values()) and found["mrl"][1] > 0.3


def is_the_loop_over_prefixes(loss):
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.standard_normal((6, 8))) for _ in range(2))
    rows, expected = torch.tensor([0, 1, 2, 1, 4, 5]), 0.0
    for m in (2, 8):
        for i in range(6):
            cosine = [float(a[i, :m] @ b[j, :m] / a[i, :m].norm() / b[j, :m].norm()) / 0.05 for j in range(6)]
            others = [c for j, c in enumerate(cosine) if j == i or rows[j] != rows[i]]
            expected += (np.log(np.sum(np.exp(others))) - cosine[i]) / 6
    np.testing.assert_allclose(float(loss(a, b, rows, (2, 8))), expected, rtol=1e-9)


def test_the_contrastive_loss_scales_every_prefix_anew():
    def forgetful(a, b, rows, sizes):
        return examples.contrastive_loss(torch.nn.functional.normalize(a), b, rows, sizes)

    def unmasked(a, b, rows, sizes):
        return examples.contrastive_loss(a, b, torch.arange(len(rows)), sizes)

    def once(a, b, rows, sizes):
        a, b = (torch.nn.functional.normalize(z) for z in (a, b))
        scores = [a[:, :m] @ b[:, :m].T / 0.05 for m in sizes]
        return sum(torch.nn.functional.cross_entropy(s, torch.arange(6)) for s in scores)

    is_the_loop_over_prefixes(examples.contrastive_loss)
    is_the_loop_over_prefixes(forgetful)  # a common scale changes nothing, since prefixes are scaled again
    for broken in (unmasked, once):
        with pytest.raises(AssertionError):
            is_the_loop_over_prefixes(broken)


@pytest.mark.parametrize("arm", [SingleShot, AdaptiveRetrieval, Funnel])
@pytest.mark.parametrize("embedding", ["mrl", "pca"])
def test_retrieval_formulas_agree_with_the_counter(arm, embedding):
    settings = ({}, {"dims": 2})
    found = exercise(
        EmbeddingRetrieval, arm, data="digits(width=16, d=16)", cases=("batch-64",), knobs=settings, embedding=embedding
    )
    for knobs in settings:
        assert found[("batch-64", tuple(knobs.items()))]["serve.flops"]["how"] == "formula, counter agrees"


def test_the_full_embedding_of_mrl_is_the_reference_of_the_task():
    found = exercise(EmbeddingRetrieval, SingleShot, data="digits(width=16, d=16)", cases=("batch-64",))[("batch-64", ())]
    assert found["quality.recall@10"]["value"] > 0.999 and abs(found["quality.relative-map@10"]["value"] - 1) < 1e-3


@pytest.mark.parametrize("ids", [np.zeros((2, 10), int), np.full((2, 10), 700), np.zeros((2, 9), int), np.zeros((2, 10))])
def test_answers_that_break_the_contract_are_wrong(ids):
    with pytest.raises(Wrong):
        retrieval.checked(ids, 2, N)


@pytest.mark.parametrize("knobs", [{"dims": 3}, {"shortlist": 5}])
@pytest.mark.parametrize("arm", [AdaptiveRetrieval, Funnel])
def test_settings_that_make_no_sense_are_refused(arm, knobs):
    with pytest.raises(ValueError):
        answer(retriever(arm, **knobs))


def test_scann_over_prefixes():
    pytest.importorskip("scann")
    for dims in (8, 0):
        method = AdaptiveScann(dims=dims, partitions=10)
        method.run = Run()
        method.build(gallery(), method.run)
        method.configure(leaves=10, shortlist=N)
        found = method.search(queries())
        assert (found[:, :, None] == truth("mrl", 16)[:, None, :]).any(2).mean() > 0.99


# -- cascade ----------------------------------------------------------------------------------------------------------


def to_classify(seed=0, rows=600):
    """Embeddings whose first numbers tell some classes and whose later ones the rest; heads are the class means."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    means = np.random.default_rng(9).standard_normal((CLASSES, 16)) * np.linspace(1.5, 0.5, 16)
    z = (means[labels] + rng.standard_normal((rows, 16))).astype(np.float32)
    heads = {m: (means[:, :m].astype(np.float32), (-0.5 * (means[:, :m] ** 2).sum(1)).astype(np.float32)) for m in SIZES}
    tied = {m: (means[:, :m].astype(np.float32), heads[16][1]) for m in SIZES}
    return z, labels, ToClassify({"mrl": z, "mrl-e": z}, labels, {"mrl": heads, "mrl-e": tied}, SIZES)


def classifier(arm, family="mrl", **knobs):
    method = arm(family=family)
    method.run = Run(backend=get("torch"))
    method.build(to_classify()[2], method.run)
    method.configure(**knobs)
    return method


def by_loop(method, z):
    """One sample after the other, one size after the other."""
    classes, dimensions = [], []
    for row in z:
        for m, threshold in zip(SIZES, method.thresholds):
            weight, bias = (np.asarray(a, np.float64) for a in method.heads[m])
            scores = weight @ row[:m] + bias
            chances = np.exp(scores - scores.max())
            if chances.max() / chances.sum() >= threshold or m == SIZES[-1]:
                classes.append(scores.argmax())
                dimensions.append(m)
                break
    return np.array(classes), np.array(dimensions)


def cascade_is_the_loop(arm):
    z = to_classify(1, 200)[0]
    for family in ("mrl", "mrl-e"):
        method = classifier(arm, family, slack=0.01)
        found = method.classify({family: torch.from_numpy(z)})
        for mine, expected in zip(found, by_loop(method, z.astype(np.float64))):
            np.testing.assert_array_equal(mine.numpy(), expected)
        if family == "mrl":
            assert len(set(found[1].tolist())) > 2, "several sizes are used, or the oracle sees nothing"


def test_the_cascade_is_the_loop_over_samples():
    cascade_is_the_loop(Cascade)


def test_the_oracle_rejects_a_cascade_that_answers_in_the_wrong_rows():
    class Shifted(Cascade):
        def classify(self, embeddings):
            classes, dimensions = super().classify(embeddings)
            return classes.roll(1), dimensions

    with pytest.raises(AssertionError):
        cascade_is_the_loop(Shifted)


@pytest.mark.parametrize("threshold, size", [(0.0, 2), (1.1, 16)])
@pytest.mark.parametrize("family", ["mrl", "mrl-e"])
def test_extreme_thresholds_use_one_size(threshold, size, family):
    method, single = classifier(Cascade, family), classifier(SingleSize, family, dims=size)
    method.thresholds = np.append(np.full(len(SIZES) - 1, threshold), 0.0)
    z = torch.from_numpy(to_classify(2)[0])
    (classes, dimensions), (expected, _) = method.classify({family: z}), single.classify({family: z})
    assert (dimensions == size).all() and (classes == expected).float().mean() > 0.999


def keeps_its_promise(choose):
    """On validation data, the cascade is right at most `slack` less often than the full classifier, whatever the data."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        confidence = np.round(rng.uniform(0.2, 1, (4, 60)), rng.integers(1, 4))  # ties, too
        right = rng.random((4, 60)) < np.linspace(0.5, 0.8, 4)[:, None]
        for slack in (0.0, 0.05, 0.2):
            found = choose(confidence, right, slack)
            used = (confidence >= found[:, None]).argmax(0)
            assert right[used, np.arange(60)].mean() >= right[-1].mean() - slack - 1e-9


def test_thresholds_keep_their_promise_on_validation_data():
    keeps_its_promise(cascades.thresholds)
    confidence, right = np.random.default_rng(0).uniform(0.2, 1, (3, 50)), np.ones((3, 50), bool)
    np.testing.assert_array_equal(cascades.thresholds(confidence, right, 0.0)[0], confidence[0].min())
    assert (cascades.thresholds(confidence, np.stack([~right[0], ~right[1], right[2]]), 0.0)[:2] == 2).all()


def test_the_promise_is_broken_by_thresholds_that_look_at_confidence_alone():
    with pytest.raises(AssertionError):
        keeps_its_promise(lambda confidence, right, slack: np.array([0.9, 0.9, 0.9, 0.0]))


def test_expected_dimensions_come_from_the_exits_and_flops_from_the_rows():
    knobs = ({"slack": 0.0}, {"slack": 0.05})
    for family in ("mrl", "mrl-e"):
        found = exercise(
            AdaptiveClassification, Cascade, data="digits(width=16, d=16)", cases=("batch-64",), knobs=knobs, family=family
        )
        for setting in knobs:
            readings = found[("batch-64", tuple(setting.items()))]
            assert readings["serve.flops"]["how"] == "formula, counter agrees"
            assert 2 <= readings["quality.expected-dimensions"]["value"] <= 16
            if family == "mrl-e":  # nobody pays more than the full classifier
                assert readings["serve.flops"]["value"] <= readings["serve.flops.dense"]["value"]


def test_a_negative_slack_is_refused():
    with pytest.raises(ValueError, match="slack"):
        classifier(Cascade, slack=-0.1)
