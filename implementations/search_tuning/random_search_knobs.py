"""Random search over the knobs: settings drawn uniformly from the logarithmic grid, the best of what was measured.

Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization" (JMLR 13, 2012). Drawn without repeats. Its trials serve all
targets at once. Left out: quasi-random sequences; bisection along a knob, which uses that recall and cost are monotone.
"""

from __future__ import annotations

from .task import KnobTuner


class RandomSearchKnobs(KnobTuner):
    name = "random-search-knobs"
    version = 1

    def tune(self, bench, targets, rng):
        rows, columns = bench.shape
        for cell in rng.permutation(rows * columns)[: bench.limit]:
            bench.measure(*divmod(int(cell), columns))
        return [bench.pick(target) for target in targets]
