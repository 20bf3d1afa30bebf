"""Boosted trees as the judge: the k columns whose permutation costs a gradient-boosting model most.

Friedman, 2001 (boosting), Breiman, 2001 (permutation importance): scikit-learn's `HistGradientBoostingClassifier` on the training
rows, importance as the rise of the log loss on up to `rows` validation rows. One model; importances are not taken anew after a pick.
"""

from __future__ import annotations

import numpy as np

from effbench import Choice, Log, param

from . import library
from .task import Selector


class GradientBoosting(Selector):
    name = "gradient-boosting"
    version = 1
    backend = "torch"
    rate = param(0.1, tune=Log(0.03, 0.3))
    iterations = param(50, tune=Choice(25, 50, 100))
    repeats = param(2)
    rows = param(1000)

    def skip(self, given):
        return super().skip(given) or library.missing()

    def select(self, given, run):
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.inspection import permutation_importance

        if self.iterations < 1 or self.repeats < 1 or not self.rate > 0:
            raise ValueError("iterations and repeats must be at least 1, rate positive")
        model = HistGradientBoostingClassifier(
            learning_rate=self.rate, max_iter=self.iterations, early_stopping=False, random_state=run.seed
        )
        with run.part("boost"):
            model.fit(given.x, given.y)
        rows = library.some_rows(len(given.validation_x), self.rows, run.rng)
        found = permutation_importance(
            model, given.validation_x[rows], given.validation_y[rows], scoring="neg_log_loss", n_repeats=self.repeats,
            random_state=run.seed,
        )  # fmt: skip
        return np.argsort(-found.importances_mean, kind="stable")[: given.k]
