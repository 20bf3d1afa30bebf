"""Grid search over a coarse lattice: as many levels of each knob as the trials allow, the best of what was measured.

The textbook baseline: levels spread evenly over each knob's grid, ends included, cells as square as possible. With no limit of
trials it is the exhaustive grid that the task measures gaps against. Left out: refinement around the best point, early stopping.
"""

from __future__ import annotations

import numpy as np

from .task import KnobTuner


def lattice(shape: tuple[int, int], trials: int) -> list[tuple[int, int]]:
    """At most `trials` settings: the largest lattice a x b, the squarest among equals, evenly spaced with both ends."""
    sizes = [(a, min(shape[1], trials // a)) for a in range(1, min(shape[0], trials) + 1)]
    rows, columns = max(sizes, key=lambda size: (size[0] * size[1], -abs(size[0] - size[1])))
    axes = [np.unique(np.linspace(0, most - 1, count).round().astype(int)) for most, count in zip(shape, (rows, columns))]
    return [(int(i), int(j)) for i in axes[0] for j in axes[1]]


class GridSearch(KnobTuner):
    name = "grid-search"
    version = 1

    def tune(self, bench, targets, rng):
        for setting in lattice(bench.shape, bench.limit):
            bench.measure(*setting)
        return [bench.pick(target) for target in targets]
