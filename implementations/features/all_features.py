"""The ceiling: the network with every column that varies, at the same width, and at the same number of first-layer weights.

The second is the fair one for claims about size: d columns into k / d of the hidden units. No paper; an independent reproduction of
arXiv 2209.14881 found both arms necessary.
"""

from __future__ import annotations

import numpy as np

from .task import Selector


class AllFeatures(Selector):
    name = "all-features"
    version = 1
    backend = "torch"

    def count(self, given):
        return given.x.shape[1]

    def select(self, given, run):
        self.spent = 0.0
        return np.arange(given.x.shape[1])


class AllFeaturesNarrow(AllFeatures):
    name = "all-features-narrow"

    def width(self, given):
        return max(1, round(given.k * given.hidden / given.x.shape[1]))
