"""Random search: every trial is an independent draw, trained in full; the best checkpoint wins.

When only a few settings matter, random draws try a new value of each, a grid repeats few; and it may stop at any time. n draws
hit the best share e of the space with probability 1 - (1 - e)^n. Bergstra and Bengio, JMLR 13 (2012).
Left out: quasi-random sequences and the comparison with a grid, which a table of random draws cannot replay.
"""

from __future__ import annotations

from .task import Tuner


class RandomSearch(Tuner):
    name = "random-search"
    version = 1

    def begin(self, cluster):
        self.cluster = cluster

    def propose(self):
        return self.cluster.sample(), self.cluster.epochs
