"""What people set by hand: a tenth of the partitions, ten times k rescored, one trial, and the same answer for every target.

No paper; the defaults that tutorials of inverted files recommend. It shows what tuning is worth. Left out: everything.
"""

from __future__ import annotations

import numpy as np

from .table import K
from .task import KnobTuner


class RuleOfThumb(KnobTuner):
    name = "rule-of-thumb"
    version = 1

    def tune(self, bench, targets, rng):
        probes = int(np.searchsorted(bench.probes, bench.probes[-1] / 10))
        rescored = int(np.searchsorted(bench.rescored, 10 * K))
        bench.measure(min(probes, bench.shape[0] - 1), min(rescored, bench.shape[1] - 1))
        return [bench.pick(target) for target in targets]
