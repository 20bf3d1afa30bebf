"""Adaptive retrieval: an exact scan of short prefixes makes a shortlist, which longer ones put in order.

Kusupati et al., "Matryoshka Representation Learning", arXiv:2205.13147, section on adaptive retrieval: D_s = 16, D_r = 2048 and a
shortlist of 200. Per query 2 N D_s + 2 K D_r FLOPs instead of 2 N D. Left out: HNSW for the shortlist, slower memory for D_r.
"""

from __future__ import annotations

from effbench import Bound, Claim, Flops, knob

from .retrieval import K
from .tables import TableRetriever, rerank, scan


class AdaptiveRetrieval(TableRetriever):
    name = "adaptive-retrieval"
    version = 1
    deterministic = True

    dims = knob(8, sweep=(2, 4, 8, 16))  # D_s
    shortlist = knob(200, sweep=(50, 200))
    rerank_dims = knob(0)  # D_r; 0 is the full length

    claims = (
        Claim(
            text="Nothing is lost against the full embedding: mAP@10 65.27 with D_s = 16, D_r = 2048 and 200 candidates against 65.20 "
            "(ImageNet-1K); 17.10 against 17.20 with D_s = 64 (ImageNet-4K), a ratio of 0.994. Asked here with D_s = 8.",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 8, the authors' data sheets; ResNet50",
            parts=(Bound("quality.relative-map@10", ">=", 0.994, params={"embedding": "mrl", "dims": 8, "shortlist": 200}),),
            size="quick",
        ),
        Claim(
            text="That mAP@10 with 1/32 of the FLOPs of the full embedding (ImageNet-4K; 1/125.5 on ImageNet-1K). N D / (N D_s + K D_r) "
            "bounds it here: 20,000 rows of 64 numbers permit 1/7.4 with D_s = 8; 30,000 of 256 permit 1/26.",
            source="Kusupati et al. (arXiv:2205.13147), Fig. 8, the authors' data sheets; ResNet50",
            parts=(
                Bound("serve.flops", "<=", 0.03125, over="single-shot", at="quality.relative-map@10 >= .994",
                      params={"embedding": "mrl"}, over_params={"embedding": "mrl", "dims": 0}),
                Bound("serve.flops", "<=", 0.2, over="single-shot", at="quality.relative-map@10 >= .994",
                      params={"embedding": "mrl"}, over_params={"embedding": "mrl", "dims": 0}),
            ),
            partly=(1,),
            size="quick",
        ),
        Claim(
            text="At equal mAP@10, fewer FLOPs and less time than the shortest single prefix that reaches it, since a short prefix of "
            "the same embedding may do without any re-ranking",
            source="our own question; no source states it",
            parts=(
                Bound("serve.flops", "<=", 1.0, over="single-shot", at="quality.relative-map@10 >= .994",
                      params={"embedding": "mrl"}, over_params={"embedding": "mrl"}),
                Bound("serve.latency", "<=", 1.0, over="single-shot", at="quality.relative-map@10 >= .994",
                      params={"embedding": "mrl"}, over_params={"embedding": "mrl"}),
            ),
            partly=(0,),
            size="quick",
        ),
    )  # fmt: skip

    def used(self):
        return self.size(self.dims, "dims"), self.size(self.rerank_dims, "rerank_dims")

    def search(self, queries):
        short, long = self.used()
        if self.shortlist < K:
            raise ValueError(f"shortlist={self.shortlist} must be at least {K}")
        query, count = self.queries(queries, max(short, long)), min(self.shortlist, self.rows)
        first = query(short)
        self.run.tally(queries=len(first))
        rows = scan(self.tables[short], first, count)
        return rows[:, :K] if short == long else rerank(self.tables[long], query(long), rows, K)

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        q, (short, long), d = tally["queries"], self.used(), self.sizes[-1]
        again = 0.0 if short == long else 2.0 * q * min(self.shortlist, self.rows) * long
        executed = 2.0 * q * self.rows * short + again + self.turning_flops(q, max(short, long))
        return Flops(executed, dense=2.0 * q * self.rows * d, other=q * self.rows, bytes=4.0 * self.rows * short + 2.0 * again)
