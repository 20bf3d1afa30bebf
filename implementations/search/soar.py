"""SOAR: every row stands in a second partition as well, chosen so that the two are seldom wrong for the same query.

Sun et al., "SOAR: Improved indexing for approximate nearest neighbor search" (NeurIPS 2023), arXiv:2404.00774. A row is missed
when its residual r lies along the query; the second partition's residual r' should then point elsewhere, so the part of r' along
r costs `amplification` more. `spill = "nearest"` is the naive second copy, "none" the plain index. Rows and floats are stored once,
codes and ids twice; an answer never names a row twice. For l2 the loss is taken over as it is, though derived for inner products.
"""

from __future__ import annotations

from effbench import Bound, Claim, param

from .partitions import assign, spill
from .scann import ScannReference


class Soar(ScannReference):
    name = "soar-reference"
    version = 1

    spill = param("orthogonal")  # or "nearest", "none"
    amplification = param(1.5)  # lambda

    claims = (
        Claim(
            text="Spilling with orthogonality-amplified residuals searches faster than no spilling at recall 0.95",
            source="our own question about Sun et al. (arXiv:2404.00774); no number of theirs is quoted",
            parts=(
                Bound(
                    "serve.throughput",
                    ">=",
                    1.0,
                    over="scann-reference",
                    at="quality.recall@10 >= .95",
                    params={"spill": "orthogonal"},
                    over_params={"loss": "anisotropic", "rescoring": "float"},
                ),
            ),
            size="quick",
        ),
        Claim(
            text="The second copy pays by its direction: fewer vectors are scored at recall 0.95 than without spilling, and than with "
            "the second nearest partition",
            source="Sun et al. (arXiv:2404.00774), Theorem 3.1 and its use; the bars of 1 are ours, no number of theirs is quoted",
            parts=(
                Bound(
                    "serve.tally.distances",
                    "<",
                    1.0,
                    over="soar-reference",
                    at="quality.recall@10 >= .95",
                    params={"spill": "orthogonal"},
                    over_params={"spill": "none"},
                    case="batch-256",
                ),
                Bound(
                    "serve.tally.distances",
                    "<",
                    1.0,
                    over="soar-reference",
                    at="quality.recall@10 >= .95",
                    params={"spill": "orthogonal"},
                    over_params={"spill": "nearest"},
                    case="batch-256",
                ),
            ),
            partly=(0,),
            size="quick",
        ),
    )

    def assigned(self, rows, centres):
        if self.spill not in ("orthogonal", "nearest", "none"):
            raise ValueError(f"spill must be 'orthogonal', 'nearest' or 'none', not '{self.spill}'")
        if not self.amplification >= 0:
            raise ValueError(f"amplification must not be negative, not {self.amplification}")
        first = assign(rows, centres)[0]
        if self.spill == "none" or len(centres) < 2:
            return [first]
        return [first, spill(rows, centres, first, self.amplification if self.spill == "orthogonal" else 0.0)]
