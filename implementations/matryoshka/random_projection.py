"""Random projection: m random orthonormal directions of a full-size model's embedding; the control that PCA and MRL must beat.

Johnson and Lindenstrauss (1984): random directions keep distances up to an error of about 1 / sqrt(m). Nested: the directions of a
size are the first of those of the next; all of them together lose nothing. Folded into the last layer, as for `pca-prefix`.
"""

from __future__ import annotations

import numpy as np
import torch

from .prefix import Prefix


class RandomProjection(Prefix):
    name = "random-projection"
    version = 1

    def extract(self, nets, heads, given, rows):
        d = given.encoder.d
        drawn = np.random.default_rng((self.run.seed, 7)).standard_normal((d, d))
        basis = np.linalg.qr(drawn)[0].T.astype(np.float32)
        kept = super().extract(nets, heads, given, rows)
        return {**kept, "basis": self.run.put(np.ascontiguousarray(basis)), "mean": torch.zeros_like(kept["head"][0])}
