"""From raw files to arrays: one function a data set. `folder` holds the checked raw files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..api.errors import DataError

DIGITS_SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"
SOILS = ("red soil", "cotton crop", "grey soil", "damp grey soil", "vegetation stubble", "very damp grey soil")


def digits(folder: Path | None = None) -> dict[str, Any]:
    """images float64[1797, 64] in 0..16, labels int64[1797] in 0..9: scikit-learn's file, read without importing it.

    Importing scikit-learn costs seconds and 100 MB, which would be charged to whoever measures memory next.
    """
    import importlib.util

    import numpy as np

    spec = importlib.util.find_spec("sklearn")
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0]) / "datasets" / "data" / "digits.csv.gz" if places else None
    if file is None:
        raise DataError(
            "the data set 'digits' is part of scikit-learn, which is not installed",
            where="digits",
            remedy="Run `pip install scikit-learn`.",
        )
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
    else:  # a version of scikit-learn that keeps it elsewhere
        from sklearn.datasets import load_digits

        loaded = load_digits()
        table = np.column_stack([loaded.data, loaded.target])
    found = hashlib.sha256(table.astype(np.uint8).tobytes()).hexdigest()
    if table.shape != (1797, 65) or found != DIGITS_SHA256:
        raise DataError(
            f"scikit-learn's digits are not the known ones (shape {table.shape}, sha256 {found[:16]}...)",
            where=str(file),
            remedy="Install another version of scikit-learn (>= 1.4), and report this.",
        )
    return {"images": np.ascontiguousarray(table[:, :64]), "labels": table[:, 64].astype(np.int64)}


def fashion_mnist(folder: Path) -> dict[str, Any]:
    """train_images uint8[60000, 28, 28], train_labels int64[60000]; test_images, test_labels of 10,000. Labels 0..9."""
    import numpy as np

    from .idx import read_idx

    arrays = {}
    for part, prefix, count in (("train", "train", 60_000), ("test", "t10k", 10_000)):
        images, labels = folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz"
        arrays[f"{part}_images"] = read_idx(images, shape=(count, 28, 28), dtype="uint8")
        # int64: as an index, uint8 means a mask to some frameworks.
        arrays[f"{part}_labels"] = read_idx(labels, shape=(count,), dtype="uint8").astype(np.int64)
    return arrays


def satellite(folder: Path) -> dict[str, Any]:
    """features float64[6435, 36] (whole numbers 0..255), labels int64[6435] in 0..5, in the order of SOILS.

    Rows are in the order of the UCI files: the first 4,435 are its training part, the last 2,000 its test part. The columns
    are nine pixels (top left to bottom right) times four spectral bands.
    """
    import numpy as np

    from .rda import read_rda

    file = folder / "Satellite.rda"
    frame = read_rda(file).get("Satellite")
    expected = [*(f"x.{index}" for index in range(1, 37)), "classes"]
    if frame is None or list(frame.columns) != expected or frame.levels.get("classes") != SOILS:
        raise DataError("not the table of 36 bands and 6 classes", where=str(file), remedy="Run `effbench data fetch satellite`.")
    features = np.column_stack([frame.columns[name] for name in expected[:-1]]).astype(np.float64)
    labels = frame.columns["classes"].astype(np.int64)
    if features.shape != (6435, 36) or not np.isfinite(features).all() or labels.min() < 0:
        raise DataError(
            f"table of shape {features.shape} with missing values", where=str(file), remedy="Run `effbench data fetch satellite`."
        )
    return {"features": features, "labels": labels}


def wordnet(folder: Path) -> dict[str, Any]:
    """Texts as UTF-8 bytes end to end: `glosses` uint8 with `gloss_ends` int64[117659] and labels int64 in 0..44; `examples` uint8
    with `example_ends` int64[n] and `example_synsets` int64[n]. Text i is bytes[ends[i - 1] : ends[i]]."""
    from .wordnet import synsets

    found = list(synsets(folder))
    glosses, ends = _joined(synset.text for synset in found)
    examples, example_ends = _joined(example for synset in found for example in synset.examples)
    return {
        "glosses": glosses,
        "gloss_ends": ends,
        "labels": _whole(synset.label for synset in found),
        "examples": examples,
        "example_ends": example_ends,
        "example_synsets": _whole(number for number, synset in enumerate(found) for _ in synset.examples),
    }


def minilm(folder: Path) -> dict[str, Any]:
    """The weights by name, float32 read-only maps."""
    from .minilm import read_safetensors

    return read_safetensors(folder / "model.safetensors")


def glosses(folders: dict[str, Path], work: Path, progress: Any) -> dict[str, Any]:
    """Minutes of work; what it gives is told in glosses.py."""
    from .glosses import make

    return make(folders, work, progress)


def _joined(texts: Iterable[str]) -> tuple[Any, Any]:
    import numpy as np

    raw = [text.encode() for text in texts]
    return np.frombuffer(b"".join(raw), np.uint8).copy(), np.cumsum([len(each) for each in raw], dtype=np.int64)


def _whole(values: Iterable[int]) -> Any:
    import numpy as np

    return np.fromiter(values, np.int64)
