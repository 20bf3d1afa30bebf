"""Adaptive classification: as few dimensions a sample as its class needs, by thresholds that were chosen on validation data.

All encoders and classifiers are prepared (`material.py`). The timed call begins with the full embedding: the encoder has run, whatever
the arm, so that what is saved here are the classifier's FLOPs and, where embeddings are stored or sent, their length. How little the
former may be stands in `encoder-flops`, of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Method, Metric, Task, Wrong, param

from . import material

TESTED = {"smoke": 256, "quick": 2048, "full": 8192}
FAMILIES = ("mrl", "mrl-e", "separate")


@dataclass(frozen=True, eq=False)
class Given:
    """validation: family -> embeddings [n, ...]; heads: family -> size -> (weight [classes, m], bias [classes])."""

    validation: dict[str, np.ndarray]
    labels: np.ndarray
    heads: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]]
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Hidden:
    embeddings: dict[str, np.ndarray]
    labels: np.ndarray
    reference: float  # accuracy on the test part of the network trained for the full size
    encoder_flops: dict[int, float]  # of one sample: one encoder with m outputs


class AdaptiveClassifier(Method):
    """The interface: `classify` gives a class and the number of dimensions that it was found with, for every sample."""

    backend = "torch"
    family = param("mrl", sweep=("mrl", "mrl-e", "separate"))

    def classify(self, embeddings: dict[str, Any]):
        """family -> embeddings [b, ...] on the device. (classes int64 [b], dimensions int64 [b])."""
        raise NotImplementedError(f"method '{self.name}' has no classify()")

    def encoded(self, m: int) -> tuple[int, ...]:
        """The lengths of the encoders that have run when a sample is classified with m dimensions."""
        return (m,)

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"classifies in float32 only, not {self.run.dtype}"

    def build(self, given: Given, run):
        if self.family not in given.heads:
            raise ValueError(f"family='{self.family}' (known: {', '.join(given.heads)})")
        self.sizes = given.sizes
        self.heads = {m: tuple(run.put(array) for array in pair) for m, pair in given.heads[self.family].items()}
        self.classes = len(self.heads[self.sizes[0]][1])

    def accept(self, embeddings: dict[str, Any]):
        """This family's embeddings. ValueError where they do not fit or are not numbers."""
        own, width = embeddings[self.family], material.columns(self.family, self.sizes[-1], self.sizes).stop
        if own.ndim != 2 or own.shape[1] != width:
            raise ValueError(f"embeddings of shape {tuple(own.shape)} do not fit classifiers of {width} numbers")
        total = float(own.sum())
        if total - total != 0:
            raise ValueError("the embeddings hold NaN or infinity")
        return own

    def parameters(self) -> int:
        sizes = self.sizes if self.family != "mrl-e" else self.sizes[-1:]
        return sum(self.heads[m][0].numel() + self.heads[m][1].numel() for m in sizes)


class AdaptiveClassification(Task):
    name = "adaptive-classification"
    version = 1
    title = "Classification with as many dimensions as a sample needs"
    interface = AdaptiveClassifier
    data = (
        Data("fashion-mnist", {"rows": 10000, "width": 256, "d": 64}, needs=("fashion-mnist",)),
        Data("fashion-mnist-cnn", {"rows": 10000, "width": 16, "d": 64}, needs=("fashion-mnist",)),
        Data("glosses", {"rows": 90000, "width": 256, "d": 256}, needs=("glosses-384",)),
        Data("digits", {"width": 64, "d": 64}),
    )
    cases = (Case("batch-64", {"batch": 64}), Case("batch-512", {"batch": 512}, ("quick", "full")))
    metrics = {
        "accuracy": Metric("1", "higher", "sample"),
        "relative-accuracy": Metric("1", "higher", "sample"),
        "expected-dimensions": Metric("1", "lower", "sample"),
        "encoder-flops": Metric("FLOP", "lower", "sample"),
    }
    baselines = ("single-size",)

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from .encoder import forward_flops

        spec, parts, trained, arrays = material.made(data, size, run)
        test = parts["test"].first(TESTED[size])
        arrays["test"] = {family: array[: len(test)] for family, array in arrays["test"].items()}
        heads = {
            f"{name}/{key}": array.cpu().numpy() for name, (_, head) in trained.items() for key, array in head.arrays().items()
        }
        return {
            **material.kept(arrays, {"validation": "validation", "test": "test"}, FAMILIES),
            **heads,
            "validation-labels": parts["validation"].labels,
            "test-labels": test.labels,
            "sizes": np.array(spec.sizes),
            "encoder-flops": np.array([forward_flops(spec, m) for m in spec.sizes], np.float64),
        }

    def given(self, data, size, seed, prepared) -> Given:
        sizes = tuple(int(m) for m in prepared["sizes"])
        validation = {family: prepared[f"validation-{family}"] for family in FAMILIES}
        return Given(
            validation, prepared["validation-labels"], {family: heads_of(prepared, family, sizes) for family in FAMILIES}, sizes
        )

    def hidden(self, data, size, seed, prepared) -> Hidden:
        embeddings = {family: prepared[f"test-{family}"] for family in FAMILIES}
        sizes = tuple(int(m) for m in prepared["sizes"])
        weight, bias = heads_of(prepared, "separate", sizes)[sizes[-1]]
        z = embeddings["separate"][:, material.columns("separate", sizes[-1], sizes)]
        reference = ((z @ weight.T + bias).argmax(1) == prepared["test-labels"]).mean()
        return Hidden(embeddings, prepared["test-labels"], float(reference), dict(zip(sizes, prepared["encoder-flops"].tolist())))

    def batches(self, case, hidden, run) -> list:
        count, batch = len(hidden.labels) // case["batch"], case["batch"]
        return [
            {family: run.put(array[i * batch : (i + 1) * batch]) for family, array in hidden.embeddings.items()}
            for i in range(count)
        ]

    def bad_batches(self, case, hidden, run) -> dict:
        wide = {family: run.put(np.ones((4, array.shape[1] + 1), np.float32)) for family, array in hidden.embeddings.items()}
        holes = {family: run.put(np.full((4, array.shape[1]), np.nan, np.float32)) for family, array in hidden.embeddings.items()}
        return {"embeddings of another length": wide, "embeddings that are not numbers": holes}

    def call(self, method, batch, case):
        return method.classify(batch)

    def items(self, batch, output) -> int:
        return len(output[0])

    def score(self, method, given, hidden, case, outputs) -> dict:
        found = [checked(*(np.asarray(one) for one in out), case["batch"], given) for out in outputs]
        classes, dimensions = (np.concatenate(parts) for parts in zip(*found))
        encoders = {m: sum(hidden.encoder_flops[k] for k in method.encoded(m)) for m in given.sizes}
        right = (classes == hidden.labels[: len(classes)]).astype(np.float64)
        return {
            "accuracy": right,
            "relative-accuracy": right / max(hidden.reference, 1e-12),
            "expected-dimensions": dimensions.astype(np.float64),
            "encoder-flops": np.array([encoders[m] for m in dimensions.tolist()]),
        }


def heads_of(prepared: dict, family: str, sizes: tuple[int, ...]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """size -> (weight, bias). The classifiers of MRL-E are columns of one."""
    name = "separate-sizes" if family == "separate" else family
    if f"{name}/head" in prepared:
        weight, bias = prepared[f"{name}/head"], prepared[f"{name}/bias"]
        return {m: (np.ascontiguousarray(weight[:, :m]), bias) for m in sizes}
    return {m: (prepared[f"{name}/head-{m}"], prepared[f"{name}/bias-{m}"]) for m in sizes}


def checked(classes: np.ndarray, dimensions: np.ndarray, batch: int, given: Given) -> tuple[np.ndarray, np.ndarray]:
    if classes.shape != (batch,) or dimensions.shape != (batch,) or classes.dtype.kind != "i" or dimensions.dtype.kind != "i":
        raise Wrong(
            f"classes {classes.dtype} {classes.shape} and dimensions {dimensions.dtype} {dimensions.shape} for {batch} samples"
        )
    if not np.isin(dimensions, given.sizes).all():
        raise Wrong(f"dimensions that are none of the sizes {given.sizes}")
    if classes.min() < 0 or classes.max() >= len(next(iter(given.heads["mrl"].values()))[1]):
        raise Wrong(f"classes from {classes.min()} to {classes.max()}")
    return classes, dimensions
