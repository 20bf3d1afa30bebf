"""The float baseline: the task's network, trained for the whole budget and served with batch norm folded in.

No paper; what every compression method is compared with, at the same number of steps.
"""

from __future__ import annotations

from effbench import Log, param

from .task import Classifier


class Dense(Classifier):
    name = "dense"
    version = 1
    backend = "torch"
    learning_rate = param(0.1, tune=Log(0.01, 0.5))
