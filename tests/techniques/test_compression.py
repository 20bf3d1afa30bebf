"""The task image-classification: splits, fairness, scoring, and its arms through the engine on the digits."""

import numpy as np

# ruff: noqa: E402
import pytest

torch = pytest.importorskip("torch")
datasets = pytest.importorskip("sklearn.datasets")

from effbench_implementations.compression.dense import Dense
from effbench_implementations.compression.dense_small import DenseSmall
from effbench_implementations.compression.magnitude_pruning import MagnitudePruning
from effbench_implementations.compression.task import ImageClassification, check, part

import effbench
from effbench import Budget, Data, DataError, Wrong
from effbench.run.exercise import exercise

DIGITS = Data("digits", {"width": 8})


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """The digits from scikit-learn; Fashion-MNIST replaced by images that carry their row number."""
    digits = datasets.load_digits()

    def dataset(name):
        if name == "digits":
            return {"images": digits.data, "labels": digits.target}
        rows = np.arange(70_000)
        images = np.stack([rows // 65_536, rows // 256 % 256, rows % 256], 1).astype(np.uint8).reshape(-1, 1, 3)
        labels = (rows % 10).astype(np.uint8)
        return {
            "train_images": images[:60_000], "train_labels": labels[:60_000],
            "test_images": images[60_000:], "test_labels": labels[60_000:],
        }  # fmt: skip

    monkeypatch.setattr(effbench, "dataset", dataset)


def test_parts_are_the_rows_they_promise():
    def rows(which):
        images, _ = part(Data("fashion-mnist", {"rows": 1000, "width": 8}), which)
        raw = np.rint((images[:, 0, 0] * 0.353 + 0.286) * 255).astype(int)
        return raw @ [65_536, 256, 1]

    assert np.array_equal(rows("train"), np.arange(1000))
    assert np.array_equal(rows("validation"), np.arange(55_000, 60_000))
    assert np.array_equal(rows("test"), np.arange(60_000, 70_000))


def test_digits_are_split_without_overlap_and_normalised():
    parts = {which: part(DIGITS, which) for which in ("train", "validation", "test")}
    assert [len(labels) for _, labels in parts.values()] == [1200, 297, 300]
    images, labels = parts["train"]
    assert images.shape == (1200, 1, 8, 8) and images.dtype == np.float32 and labels.dtype == np.int64
    assert abs(images.mean()) < 1e-2 and abs(images.std() - 1) < 1e-2
    seen = sorted(int(np.rint(image.sum() * 1e3)) for images, _ in parts.values() for image in images)
    digits = (datasets.load_digits().data / 16 - 0.305) / 0.376
    assert np.allclose(seen, sorted(np.rint(digits.sum(1) * 1e3)), atol=2)


def test_given_holds_nothing_of_the_test_part():
    task = ImageClassification()
    given, hidden = task.given(DIGITS, "smoke", 0, {}), task.hidden(DIGITS, "smoke", 0, {})
    seen = {image.tobytes() for image in (*given.train_images, *given.validation_images)}
    # One pair of the digits might be drawn alike; a leak would be all of them.
    assert sum(image.tobytes() in seen for image in hidden.images) <= 1


@pytest.mark.parametrize("data", [Data("digits", {"width": 0}), Data("fashion-mnist", {"rows": 60_000, "width": 8}), Data("cifar")])
def test_impossible_data_is_refused(data):
    with pytest.raises(DataError):
        ImageClassification().given(data, "smoke", 0, {})


@pytest.mark.parametrize("method", [Dense, DenseSmall, MagnitudePruning])
def test_each_arm_runs_through_the_engine(method):
    out = exercise(ImageClassification, method, data="digits", budget=Budget(steps=30), seconds=0.001)
    assert not out["notes"] and out["build"]["build.steps"]["value"] == 30
    assert out["build"]["build.samples"]["value"] == 30 * 128
    assert len(out["curve"]["accuracy"]) >= 15 and out["curve"]["steps"][-1] == 30
    for case, batch in (("batch-1", 1), ("batch-64", 64)):
        readings = out[case, ()]
        assert readings["quality.accuracy"]["n"] == 300 and readings["quality.accuracy"]["value"] > 0.7
        assert readings["serve.items"]["value"] == batch
        flops = {key: readings[f"serve.flops{key}"]["value"] for key in ("", ".useful", ".dense")}
        small, pruned = method is DenseSmall, method is MagnitudePruning
        assert (flops[""] == flops[".dense"]) is not small
        assert (flops[".useful"] < 0.5 * flops[".dense"]) is (small or pruned)
        assert "differs" not in readings["serve.flops"]["how"]


def test_every_arm_takes_the_same_number_of_steps_and_none_without_a_budget():
    with pytest.raises(ValueError, match="budget in steps"):
        exercise(ImageClassification, Dense, data="digits")
    task = ImageClassification()
    record = {"method": "dense", "budget": {"steps": 30}, "readings": {}}
    assert not task.unfair(record, record | {"method": "magnitude-pruning"})
    assert "different budgets" in task.unfair(record, record | {"budget": {"steps": 60}})


def test_small_dense_baseline_has_as_many_parameters_as_the_pruned_network_keeps():
    def record(method, count):
        return {"method": method, "budget": {"steps": 9}, "readings": {"quality.nonzero-parameters": {"value": count}}}

    unfair = ImageClassification().unfair
    for sparsity in (0.5, 0.8, 0.95):
        small = exercise(
            ImageClassification, DenseSmall, data="digits", budget=Budget(steps=2), cases=("batch-1",), sparsity=sparsity
        )
        kept = round(17_786 - sparsity * (17_890 - 2 * 104 - 10))
        count = small["batch-1", ()]["quality.nonzero-parameters"]["value"]
        assert not unfair(record("dense-small", count), record("magnitude-pruning", kept))
        assert "should be equal" in unfair(record("magnitude-pruning", kept), record("dense-small", count // 2))
    with pytest.raises(ValueError, match="sparsity"):
        exercise(ImageClassification, DenseSmall, data="digits", budget=Budget(steps=2), sparsity=1.0)


def test_wrong_answers_are_refused():
    good = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    check(good, good + 1e-5)
    for bad in (good[:, :9], good[:1], np.full_like(good, np.nan), np.roll(good, 1, axis=0)):
        with pytest.raises(Wrong):
            check(bad, good)


class Cached(Dense):
    """Broken: answers a small batch from the first one it saw."""

    name = "cached"

    def predict(self, images):
        if len(images) != 64:
            return super().predict(images)
        if not hasattr(self, "kept"):
            self.kept = super().predict(images)
        return self.kept


class Flattened(Dense):
    """Broken: one row too few."""

    name = "flattened"

    def predict(self, images):
        return super().predict(images)[1:]


@pytest.mark.parametrize("broken", [Cached, Flattened])
def test_broken_methods_are_caught(broken):
    with pytest.raises(Wrong):
        exercise(ImageClassification, broken, data="digits", budget=Budget(steps=9), cases=("batch-64",), seconds=0.001)
