"""The labelled data of the area, cut in train, validation and test; and the encoder that each of them gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import effbench
from effbench import Data, DataError

BATCH = 128  # training samples in one step
VALIDATION = 5000  # rows of the training part of Fashion-MNIST that validate
SMOKE_ROWS = 1000


@dataclass(frozen=True)
class Encoder:
    """The network of every arm: `side` > 0: CNN-`width` on images of that side; else a layer of `width` ReLUs on `inputs` numbers."""

    inputs: int
    width: float
    d: int  # length of the full embedding
    classes: int
    side: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The nested sizes: d halved down to 2, ascending."""
        return tuple(sorted(self.d >> i for i in range(self.d.bit_length()) if self.d >> i >= 2))


@dataclass(frozen=True, eq=False)
class Part:
    """Inputs float32 [n, inputs] or [n, 1, side, side]; labels int64 [n]."""

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, rows: int) -> Part:
        return Part(self.inputs[:rows], self.labels[:rows])


def encoder(data: Data, parts: dict[str, Part]) -> Encoder:
    shape, d, width = parts["train"].inputs.shape, data.args["d"], data.args["width"]
    if d < 4 or d & (d - 1):
        raise DataError(f"d={d}", where=str(data), remedy="Use a power of two, at least 4: sizes are halved.")
    side = shape[-1] if len(shape) == 4 else 0
    if (4 if side else 1) * width < d:
        remedy = f"Use at least {d // 4 if side else d}, or embeddings of fewer numbers."
        raise DataError(f"width={width} gives fewer hidden numbers than d={d}", where=str(data), remedy=remedy)
    classes = int(max(part.labels.max() for part in parts.values())) + 1
    return Encoder(int(np.prod(shape[1:])), width, d, classes, side=side)


def split(data: Data, size: str) -> dict[str, Part]:
    """train (the first `rows`), validation, test: disjoint, the same for every seed. DataError for arguments that do not fit."""
    if data.name == "digits":
        arrays = effbench.dataset("digits")
        order = np.random.default_rng(0).permutation(len(arrays["labels"]))
        inputs = (arrays["images"][order] / 16 - 0.305) / 0.376
        return cut(inputs, arrays["labels"][order], SMOKE_ROWS, 1250)
    rows = min(data.args["rows"], SMOKE_ROWS) if size == "smoke" else data.args["rows"]
    if data.name in ("fashion-mnist", "fashion-mnist-cnn"):
        arrays = effbench.dataset("fashion-mnist")
        images = np.concatenate((arrays["train_images"], arrays["test_images"]))[:, None]
        labels = np.concatenate((arrays["train_labels"], arrays["test_labels"]))
        most = len(arrays["train_labels"]) - VALIDATION
        check(data, rows, most)
        keep = np.r_[:rows, most : len(labels)]
        pixels = (images[keep].astype(np.float32) / 255 - 0.286) / 0.353
        return cut(pixels if data.name.endswith("cnn") else pixels.reshape(len(keep), -1), labels[keep], rows, rows + VALIDATION)
    if data.name == "glosses":
        arrays = effbench.dataset("glosses-384")
        order = np.random.default_rng(0).permutation(len(arrays["labels"]))
        most = int(0.8 * len(order))
        check(data, rows, most)
        keep = np.r_[order[:rows], order[most:]]
        # Unit vectors have entries of about 1 / sqrt(384): scaled to unit variance for a common learning rate.
        inputs = arrays["vectors"][keep].astype(np.float32) * np.float32(np.sqrt(arrays["vectors"].shape[1]))
        return cut(inputs, arrays["labels"][keep], rows, rows + (len(keep) - rows) // 2)
    raise DataError(
        f"no data set '{data.name}'", where="matryoshka", remedy="(known: digits, fashion-mnist, fashion-mnist-cnn, glosses)"
    )


def check(data: Data, rows: int, most: int) -> None:
    if not BATCH <= rows <= most:
        raise DataError(f"rows={rows}", where=str(data), remedy=f"Use {BATCH} to {most} training rows.")


def cut(inputs, labels, first: int, second: int) -> dict[str, Part]:
    ends = {"train": slice(0, first), "validation": slice(first, second), "test": slice(second, None)}
    return {
        name: Part(np.ascontiguousarray(inputs[rows], dtype=np.float32), labels[rows].astype(np.int64))
        for name, rows in ends.items()
    }
