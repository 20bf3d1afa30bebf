"""PCA prefixes: the embedding of a full-size model, turned so that the first m numbers keep the most variance.

The free rival of MRL (its paper's "SVD"): no further training, and since the rotation is folded into the encoder's last layer, no
further work when it serves. The classifier is the full one, seen through the m directions. Left out: whitening.
"""

from __future__ import annotations

import torch

from effbench import Bound, Claim

from .encoder import forward_flops
from .prefix import Prefix
from .represent import embed_all


class PcaPrefix(Prefix):
    name = "pca-prefix"
    version = 1

    claims = (
        Claim(
            text="From a quarter of the dimensions on as good as networks trained for the size (76.78 against 76.18 % at 512 of 2048); "
            "at an eighth not yet (74.59 against 75.71 %)",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 2, the authors' data sheet (SVD); ResNet50 on ImageNet-1K",
            parts=(
                Bound("quality.accuracy", ">=", 1.0, over="separate-sizes", case="dims-16", budget="steps"),
                Bound("quality.accuracy", "<=", 1.0, over="separate-sizes", case="dims-8", budget="steps"),
            ),
            partly=(0,),
            size="quick",
        ),
    )

    def extract(self, nets, heads, given, rows):
        z = embed_all(nets[0], given.train.inputs[:rows], self.run)
        mean = z.mean(0)
        centred = z - mean
        _, directions = torch.linalg.eigh(centred.T @ centred / len(z))
        return {**super().extract(nets, heads, given, rows), "basis": directions.T.flip(0).contiguous(), "mean": mean}

    def fitting_flops(self, spec, rows):
        """One pass over the training rows and their covariance; the eigenvectors of [d, d] by the usual 9 d^3."""
        return rows * (forward_flops(spec, spec.d) + 2.0 * spec.d**2) + 9.0 * spec.d**3
