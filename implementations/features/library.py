"""Where a selection is scikit-learn's: the reason not to run without it, and the rows that are looked at."""

from __future__ import annotations

import importlib.util

import numpy as np


def missing() -> str:
    """A reason to skip, or "". Imports the parts that are needed, so that no import falls into the build."""
    if importlib.util.find_spec("sklearn") is None:
        return "scikit-learn is not installed: pip install scikit-learn"
    import sklearn.ensemble
    import sklearn.feature_selection
    import sklearn.inspection  # noqa: F401

    return ""


def some_rows(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """All rows, or `most` of them by chance. ValueError where that is none."""
    if most < 10:
        raise ValueError(f"rows={most} must be at least 10")
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
