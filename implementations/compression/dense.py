"""The float baseline: the task's network, trained for the whole budget and served with batch norm folded in.

No paper; what every compression method is compared with, at the same number of steps.
"""

from __future__ import annotations

from .task import Classifier


class Dense(Classifier):
    name = "dense"
    version = 1
    backend = "torch"
