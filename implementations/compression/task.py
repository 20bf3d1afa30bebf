"""Image classification under compression: one network, one recipe and one number of steps for every arm.

Fairness: the task owns the network and the training recipe, and each arm gets the same total number of optimiser steps. What a
technique does on top (prune, fine-tune, calibrate) happens inside them; otherwise longer training passes for compression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import effbench
from effbench import Case, Data, DataError, Flops, Log, Method, Metric, Step, Task, Wrong, param

BATCH = 128  # training images in one step
TRAIN_ROWS = 55_000  # Fashion-MNIST rows 0 .. 54,999 train, 55,000 .. 59,999 validate, the t10k file tests


@dataclass(frozen=True, eq=False)
class Given:
    """Images float32 [n, 1, side, side], normalised; labels int64 [n]. The network is CNN-`width` of `shared/cnn.py`."""

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    width: float
    classes: int = 10
    batch: int = BATCH

    @property
    def side(self) -> int:
        return self.train_images.shape[-1]

    def network(self, run, width: float | None = None):
        """The task's torch network on the run's device, initialised from the run's seed."""
        from ..shared.cnn import CNN

        return CNN(self.width if width is None else width, classes=self.classes, seed=run.seed).to(run.device)

    def train(self, net, optimiser, run) -> Iterator[int]:
        """The standard recipe for the whole budget; yields the number of steps done after each."""
        from ..shared.cnn import train

        images, labels = run.put(self.train_images), run.put(self.train_labels)
        yield from train(net, optimiser, images, labels, steps=run.budget.steps, batch=self.batch, seed=run.seed)


@dataclass(frozen=True, eq=False)
class Hidden:
    images: np.ndarray
    labels: np.ndarray


class Classifier(Method):
    """The interface: `predict`, on a network that the task's recipe trained for `run.budget.steps` steps.

    The arms differ in `width`, in `start` and `after_step` around the optimiser, and in the arrays that `encode` stores. An arm
    with another runtime overrides `finish`, `predict`, and the pair `save` and `load`.
    """

    backend = "torch"
    learning_rate = param(0.1, tune=Log(0.01, 0.5))  # the peak; the same default and tuning range for every arm

    def predict(self, images):
        """Images as in `Given`, on the device -> logits [batch, classes]. What `Task.call` times."""
        return self.forward(images)

    def width(self, given: Given) -> float:
        return given.width

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def start(self, net, optimiser, given: Given, steps: int) -> None:
        """Before the first step of `steps`."""

    def after_step(self, step: int) -> None:
        """After optimiser step 1 .. steps; the network is in eval mode."""

    def build(self, given: Given, run):
        from ..shared import cnn

        if not run.budget.steps:
            raise ValueError("compression methods need a budget in steps, the same for every arm: budget = {steps = 156}")
        self.net = given.network(run, self.width(given))
        self.forward = cnn.inference(self.net)
        self.steps = run.budget.steps
        optimiser = cnn.sgd(self.net, learning_rate=self.learning_rate)
        self.start(self.net, optimiser, given, self.steps)
        for step in given.train(self.net, optimiser, run):
            self.after_step(step)
            yield Step(samples=given.batch)
        self.finish(cnn.folded(self.net), given)

    def finish(self, served, given: Given) -> None:
        """`served` is the trained network with batch norm folded in: what is stored, counted and timed."""
        from ..shared import cnn

        self.served, self.shape = served, (self.width(given), given.width, given.side, given.classes, given.batch)
        self.forward = cnn.inference(served)

    def encode(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store for all parameters of the served network as one float32 vector."""
        return {"values": vector}

    def decode(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        return arrays["values"]

    def save(self, folder: Path) -> None:
        from ..shared import cnn

        np.savez(Path(folder) / "network.npz", **self.encode(cnn.to_vector(self.served)))

    def load(self, folder: Path, given: Given) -> None:
        from ..shared import cnn

        with np.load(Path(folder) / "network.npz", allow_pickle=False) as file:
            vector = self.decode(dict(file))
        self.steps = self.run.budget.steps
        self.finish(cnn.from_vector(vector, self.width(given), given.classes, device=self.run.device), given)

    def parameters(self) -> int:
        """Stored numbers of the served network, zeros included."""
        return sum(parameter.numel() for parameter in self.served.parameters())

    def nonzero(self) -> int:
        """The same without the zeros."""
        return sum(int((parameter != 0).sum()) for parameter in self.served.parameters())

    def step_flops(self, given: Given) -> float:
        from ..shared import cnn

        return given.batch * cnn.training_flops(self.width(given), given.side, given.classes)

    def flops(self, phase: str, case: Case | None, tally) -> Flops | None:
        """Dense kernels: zeros that are multiplied are executed; useful leaves them out; dense is the task's own network."""
        from ..shared import cnn

        width, full, side, classes, batch = self.shape
        if phase == "build":
            if not self.steps:
                return None
            each = self.steps * batch
            dense = each * cnn.training_flops(full, side, classes)
            return Flops(each * cnn.training_flops(width, side, classes), dense=dense)
        kernels = zip(self.served.kernels(), cnn.layers(width, side, classes))
        useful = sum(2 * int((kernel != 0).sum()) * layer.positions for kernel, layer in kernels)
        executed, dense = (cnn.forward_flops(w, side, classes) for w in (width, full))
        other = cnn.elementwise_flops(width, side, classes)
        return Flops(*(case["batch"] * count for count in (executed, useful, dense, other)))


class ImageClassification(Task):
    name = "image-classification"
    version = 1
    title = "Small image classifier in fewer bytes or operations"
    interface = Classifier
    data = (
        Data("fashion-mnist", {"rows": 10000, "width": 16}, needs=("fashion-mnist",)),
        Data("digits", {"width": 8}),
    )
    cases = (Case("batch-1", {"batch": 1}), Case("batch-64", {"batch": 64}))
    metrics = {"accuracy": Metric("1", "higher", "image"), "nonzero-parameters": Metric("1", "lower", "seed")}
    baselines = ("dense", "dense-small")
    objective = "accuracy"

    def given(self, data, size, seed, prepared) -> Given:
        given = Given(*part(data, "train"), *part(data, "validation"), data.args["width"])
        if not given.width > 0:
            raise DataError(f"width={given.width}", where=str(data), remedy="Use a positive width, as 8 or 16.")
        return given

    def hidden(self, data, size, seed, prepared) -> Hidden:
        return Hidden(*part(data, "test"))

    def evaluate(self, method, given) -> dict[str, float]:
        """On all validation images in a full run, on the first 2,000 otherwise: else evaluation costs more than training."""
        rows = len(given.validation_labels) if method.run.size == "full" else 2000
        logits = predict_all(method, given.validation_images[:rows])
        return {"accuracy": float((logits.argmax(1) == given.validation_labels[:rows]).mean())}

    def batches(self, case, hidden, run) -> list:
        count = min(len(hidden.images) // case["batch"], 8)
        return [run.put(hidden.images[i * case["batch"] : (i + 1) * case["batch"]]) for i in range(count)]

    def call(self, method, batch, case):
        return method.predict(batch)

    def score(self, method, given, hidden, case, outputs) -> dict:
        """Accuracy on the whole test set, beyond the timed batches, whose answers must be those of the same images there."""
        logits = predict_all(method, hidden.images)
        for index, output in enumerate(outputs):
            expected = logits[index * case["batch"] : (index + 1) * case["batch"]]
            check(np.asarray(output), expected)
        right = (logits.argmax(1) == hidden.labels).astype(np.float64)
        return {"accuracy": right, "nonzero-parameters": float(method.nonzero())}

    def unfair(self, record, other) -> str:
        if record["budget"] != other["budget"]:
            return f"trained under different budgets: {record['budget']} and {other['budget']}"
        by_name = {one["method"]: one for one in (record, other)}
        if "dense-small" in by_name and len(by_name) == 2 and "dense" not in by_name:
            small = by_name.pop("dense-small")["readings"].get("quality.nonzero-parameters", {}).get("value")
            ((name, arm),) = by_name.items()
            kept = arm["readings"].get("quality.nonzero-parameters", {}).get("value")
            # Channels are whole numbers, so the baseline may be somewhat larger, never smaller.
            if small and kept and not 0.98 * kept <= small <= 1.2 * kept:
                return f"dense-small has {small} parameters, {name} {kept} that are not zero; they should be equal"
        return ""


def part(data: Data, which: str) -> tuple[np.ndarray, np.ndarray]:
    """The train, validation or test part: images float32 [n, 1, side, side], normalised, and labels int64 [n]."""
    if data.name == "fashion-mnist":
        rows = data.args["rows"]
        if not BATCH <= rows <= TRAIN_ROWS:
            raise DataError(f"rows={rows}", where=str(data), remedy=f"Use {BATCH} to {TRAIN_ROWS} training rows.")
        arrays = effbench.dataset("fashion-mnist")
        file = "test" if which == "test" else "train"
        chosen = {"train": slice(0, rows), "validation": slice(TRAIN_ROWS, 60_000), "test": slice(None)}[which]
        images, labels, top, mean, spread = arrays[f"{file}_images"], arrays[f"{file}_labels"], 255, 0.286, 0.353
    elif data.name == "digits":
        arrays = effbench.dataset("digits")
        order = np.random.default_rng(0).permutation(len(arrays["labels"]))
        chosen = order[{"train": slice(0, 1200), "validation": slice(1200, 1497), "test": slice(1497, None)}[which]]
        images, labels, top, mean, spread = arrays["images"].reshape(-1, 8, 8), arrays["labels"], 16, 0.305, 0.376
    else:
        raise DataError(f"no data set '{data.name}'", where="image-classification", remedy="(known: fashion-mnist, digits)")
    images = (images[chosen].astype(np.float32) / top - mean) / spread
    return images.astype(np.float32)[:, None], labels[chosen].astype(np.int64)


def predict_all(method: Classifier, images: np.ndarray, batch: int = 500) -> np.ndarray:
    """Logits of all images, [n, classes]. Wrong where a batch comes back in another shape."""
    found = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        logits = np.asarray(method.run.numpy(method.predict(method.run.put(part))))
        if logits.ndim != 2 or len(logits) != len(part) or not np.isfinite(logits).all():
            raise Wrong(f"predict gave {logits.shape} for {len(part)} images, or numbers that are not finite")
        found.append(logits)
    return np.concatenate(found)


def check(output: np.ndarray, expected: np.ndarray) -> None:
    """A timed answer agrees with the answer to the same images in the scoring pass; kernels may differ in the last digits."""
    if output.shape != expected.shape:
        raise Wrong(f"predict gave logits of shape {output.shape}, not {expected.shape}")
    if not np.isfinite(output).all() or np.abs(output - expected).mean() > 0.1 * max(float(expected.std()), 1e-6):
        raise Wrong("logits of a timed call differ from those of the same images in the scoring pass")
