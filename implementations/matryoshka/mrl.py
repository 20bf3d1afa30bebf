"""Matryoshka representations: train one embedding so that every prefix classifies by itself, and choose the length later.

Kusupati et al., "Matryoshka Representation Learning" (NeurIPS 2022), arXiv:2205.13147: the loss is the sum over sizes m of the
cross-entropy of a linear classifier of its own on the first m numbers, all with weight 1. Left out: learnt or tuned weights, sizes
other than halvings, contrastive losses, label smoothing and augmentation of the paper's recipe.
"""

from __future__ import annotations

from effbench import Bound, Claim

from .recipe import Heads
from .task import Representation


class Mrl(Representation):
    name = "mrl"
    version = 1

    claims = (
        Claim(
            text="At every size as accurate as a network trained for that size alone: top-1 from 66.63 against 65.29 % at 8 to 76.80 "
            "against 76.87 % at 2048 dimensions; the smallest ratio is 0.999. Asked here with the same steps for each network.",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 2, the authors' data sheet; ResNet50 on ImageNet-1K",
            parts=(
                Bound("quality.accuracy", ">=", 0.999, over="separate-sizes", case="dims-4", budget="steps"),
                Bound("quality.accuracy", ">=", 0.999, over="separate-sizes", case="dims-8", budget="steps"),
                Bound("quality.accuracy", ">=", 0.999, over="separate-sizes", case="dims-16", budget="steps"),
                Bound("quality.accuracy", ">=", 0.999, over="separate-sizes", case="dims-32", budget="steps"),
                Bound("quality.accuracy", ">=", 0.999, over="separate-sizes", case="dims-64", budget="steps"),
            ),
            size="quick",
        ),
        Claim(
            text="Far better than SVD of the full embedding at short lengths: 75.82 against 48.10 % at 1/32 of the dimensions, 76.30 "
            "against 67.24 % at 1/16. Here that is 2 and 4 of 64, and with C classes C - 1 dimensions are all that a classifier needs.",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 2, the authors' data sheet; ResNet50 on ImageNet-1K",
            parts=(
                Bound("quality.accuracy", ">=", 1.576, over="pca-prefix", case="dims-2", budget="steps"),
                Bound("quality.accuracy", ">=", 1.134, over="pca-prefix", case="dims-4", budget="steps"),
            ),
            size="quick",
        ),
        Claim(
            text="PCA of the full-size model, with a linear classifier fitted anew for both, is the free rival: MRL is better by at "
            "least 1 % of the accuracy at every size up to 16.",
            source="our own question; no source states a number for it",
            parts=(
                Bound("quality.probe-accuracy", ">=", 1.01, over="pca-prefix", case="dims-2", budget="steps"),
                Bound("quality.probe-accuracy", ">=", 1.01, over="pca-prefix", case="dims-4", budget="steps"),
                Bound("quality.probe-accuracy", ">=", 1.01, over="pca-prefix", case="dims-8", budget="steps"),
                Bound("quality.probe-accuracy", ">=", 1.01, over="pca-prefix", case="dims-16", budget="steps"),
            ),
            partly=(0, 1),
            size="quick",
        ),
        Claim(
            text="The label of the nearest row: at the smallest size better than a network trained for it (62.19 against 58.93 % at "
            "8 of 2048), a ratio of 1.055",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 3, the authors' data sheet; ResNet50 on ImageNet-1K",
            parts=(Bound("quality.nearest-accuracy", ">=", 1.055, over="separate-sizes", case="dims-2", budget="steps"),),
            size="quick",
        ),
    )

    def heads(self, spec):
        return Heads(spec.sizes, spec.classes, self.run.seed)
