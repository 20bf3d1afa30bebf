"""A filter: the k columns with the largest mutual information with the label, each looked at alone.

Estimated from nearest neighbours (Kraskov et al. 2004, Ross 2014), scikit-learn's `mutual_info_classif`. It sees neither redundancy
nor columns that tell something only together. Up to `rows` training rows, as the estimate takes milliseconds a column.
"""

from __future__ import annotations

import numpy as np

from effbench import Choice, param

from . import library
from .task import Selector


class MutualInformation(Selector):
    name = "mutual-information"
    version = 1
    backend = "torch"
    neighbours = param(3, tune=Choice(3, 5, 10))
    rows = param(4000)

    def skip(self, given):
        return super().skip(given) or library.missing()

    def select(self, given, run):
        from sklearn.feature_selection import mutual_info_classif

        if self.neighbours < 1:
            raise ValueError(f"neighbours={self.neighbours} must be at least 1")
        rows = library.some_rows(len(given.x), self.rows, run.rng)
        found = mutual_info_classif(given.x[rows], given.y[rows], n_neighbors=self.neighbours, random_state=run.seed)
        return np.argsort(-found, kind="stable")[: given.k]
