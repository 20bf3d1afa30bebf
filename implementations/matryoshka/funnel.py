"""Funnel retrieval: the length doubles and the shortlist halves, until the full embedding orders the last few.

Kusupati et al., arXiv:2205.13147 (appendix and the authors' code): from a shortlist of 200 at D_s = 8 on, prefixes of 16, 32, 64, 128
and 2048 numbers keep 200, 100, 50, 25 and 10. Here the first re-ranking has twice the length of the scan, and so on; the last one has
the full length. Left out: HNSW for the first shortlist.
"""

from __future__ import annotations

from effbench import Bound, Claim, Flops, knob

from .retrieval import K
from .tables import TableRetriever, rerank, scan


class Funnel(TableRetriever):
    name = "funnel"
    version = 1
    deterministic = True

    dims = knob(8, sweep=(2, 4, 8, 16))  # of the scan
    shortlist = knob(200, sweep=(50, 200))  # after the scan

    claims = (
        Claim(
            text="A funnel costs no mAP@10 against one re-ranking of the same shortlist (65.19 against 65.27, ratio 0.998) and fewer "
            "FLOPs (20.54 against 20.91 million multiply-adds, ratio 0.982). By our reading the first figure is the funnel's.",
            source="Kusupati et al. (arXiv:2205.13147), the authors' data sheets for adaptive retrieval; ResNet50 on ImageNet-1K",
            parts=(
                Bound("quality.map@10", ">=", 0.998, over="adaptive-retrieval", params={"embedding": "mrl", "dims": 8},
                      over_params={"embedding": "mrl", "dims": 8}),
                Bound("serve.flops", "<=", 0.982, over="adaptive-retrieval", params={"embedding": "mrl", "dims": 8},
                      over_params={"embedding": "mrl", "dims": 8}),
            ),
            partly=(0,),
            size="quick",
        ),
    )  # fmt: skip

    def used(self):
        first = self.size(self.dims, "dims")
        return tuple(m for m in self.sizes if m >= first)

    def counts(self) -> list[int]:
        """Rows that survive the scan and each re-ranking; the last keeps K."""
        sizes, count = self.used(), min(self.shortlist, self.rows)
        kept = [max(K, count >> i) for i in range(len(sizes))]
        return [*kept[:-1], K]

    def search(self, queries):
        if self.shortlist < K:
            raise ValueError(f"shortlist={self.shortlist} must be at least {K}")
        sizes, counts = self.used(), self.counts()
        query = self.queries(queries, sizes[-1])
        first = query(sizes[0])
        self.run.tally(queries=len(first))
        rows = scan(self.tables[sizes[0]], first, counts[0])
        for m, count in zip(sizes[1:], counts[1:]):
            rows = rerank(self.tables[m], query(m), rows, count)
        return rows

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        q, sizes, counts, d = tally["queries"], self.used(), self.counts(), self.sizes[-1]
        again = sum(2.0 * q * count * m for m, count in zip(sizes[1:], counts))
        executed = 2.0 * q * self.rows * sizes[0] + again + self.turning_flops(q, d)
        return Flops(executed, dense=2.0 * q * self.rows * d, other=q * self.rows, bytes=4.0 * self.rows * sizes[0] + 2.0 * again)
