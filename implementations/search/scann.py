"""ScaNN: the nearest partitions are scored through 4-bit codes in registers, the best rows are rescored.

Guo et al., "Accelerating large-scale inference with anisotropic vector quantization" (ICML 2020), arXiv:1908.10396. Codes
minimise the error where it matters: along the point, weighted by eta(T). `loss = "reconstruction"` and `rescoring = "none"` are
the ablations. Codes are those of residuals, for every metric (the library does so for inner products only).
Left out: several levels of partitions, int8 centres, a GPU path. The library itself is the method `scann`.
"""

from __future__ import annotations

from effbench import Bound, Claim, knob, param

from .partitions import assign, kmeans
from .quantised import QuantisedIndex


class ScannReference(QuantisedIndex):
    name = "scann-reference"
    version = 1

    partitions = param(256, sweep=(64, 256, 1024))
    leaves = knob(8, sweep=(1, 2, 4, 8, 16, 32))

    claims = (
        Claim(
            text="At recall 0.95 in batches, faster than inverted files of full vectors and at least half as fast as the library",
            source="our own bar for this implementation; no paper states it",
            parts=(
                Bound(
                    "serve.throughput",
                    ">=",
                    1.0,
                    over="ivf",
                    at="quality.recall@10 >= .95",
                    case="batch-256",
                    params={"loss": "anisotropic", "rescoring": "float"},
                ),
                Bound(
                    "serve.throughput",
                    ">=",
                    1.0,
                    over="faiss-ivf",
                    at="quality.recall@10 >= .95",
                    case="batch-256",
                    params={"loss": "anisotropic", "rescoring": "float"},
                ),
                Bound(
                    "serve.throughput",
                    ">=",
                    0.5,
                    over="scann",
                    at="quality.recall@10 >= .95",
                    case="batch-256",
                    params={"loss": "anisotropic", "rescoring": "float"},
                ),
            ),
            partly=(0, 1),
            size="quick",
        ),
        Claim(
            text="At the same bits, codes of the score-aware loss find more true neighbours than codes of the plain error",
            source="Guo et al. (arXiv:1908.10396), abstract: outperforms the reconstruction loss; their figures were not read here",
            parts=(
                Bound(
                    "quality.recall@10",
                    ">",
                    1.0,
                    over="scann-reference",
                    params={"loss": "anisotropic", "rescoring": "none"},
                    over_params={"loss": "reconstruction", "rescoring": "none"},
                    case="batch-256",
                ),
                Bound(
                    "quality.relative-error",
                    "<",
                    1.0,
                    over="scann-reference",
                    params={"loss": "anisotropic", "rescoring": "none"},
                    over_params={"loss": "reconstruction", "rescoring": "none"},
                    case="batch-256",
                ),
            ),
            partly=(0,),
            size="quick",
        ),
    )

    def index(self, base, given, run):
        if self.partitions < 1:
            raise ValueError(f"partitions must be at least 1, not {self.partitions}")
        rows = self.centred(base)
        count = min(self.partitions, len(rows))
        with run.part("kmeans"):
            centres = kmeans(self.sample(rows, count), count, self.iterations, run.rng)
        with run.part("assign"):
            members = self.assigned(rows, centres)
        self.quantise(rows, centres, members)

    def assigned(self, rows, centres):
        """Partitions of all rows, one array for each copy."""
        return [assign(rows, centres)[0]]
