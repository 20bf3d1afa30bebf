"""MRL-E: Matryoshka representations with one classifier for all sizes, whose first m columns are the classifier of size m.

Kusupati et al., arXiv:2205.13147, section on efficient MRL. Beside the full classifier nothing is stored, and the scores of all sizes
together cost one full product. Left out: as for `mrl`.
"""

from __future__ import annotations

from effbench import Bound, Claim

from .recipe import TiedHeads
from .task import Representation


class MrlE(Representation):
    name = "mrl-e"
    version = 1

    claims = (
        Claim(
            text="One tied classifier costs little accuracy from the second size on: 71.94 against 73.53 % for MRL at 16 dimensions, "
            "the smallest ratio there (0.978); 76.51 against 76.80 % at 2048; but 56.66 against 66.63 % at 8 (0.850)",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 2, the authors' data sheet; ResNet50 on ImageNet-1K",
            parts=(
                Bound("quality.accuracy", ">=", 0.978, over="mrl", case="dims-4"),
                Bound("quality.accuracy", ">=", 0.978, over="mrl", case="dims-8"),
                Bound("quality.accuracy", ">=", 0.978, over="mrl", case="dims-16"),
                Bound("quality.accuracy", ">=", 0.978, over="mrl", case="dims-32"),
                Bound("quality.accuracy", ">=", 0.978, over="mrl", case="dims-64"),
                Bound("quality.accuracy", ">=", 0.850, over="mrl", case="dims-2"),
            ),
            partly=(0, 1, 2, 3, 4),
            size="quick",
        ),
    )

    def heads(self, spec):
        return TiedHeads(spec.sizes, spec.classes, self.run.seed)
