"""A table of sketches under locality-sensitive hashing: random hyperplanes, several tables, exact comparison in the bucket.

SimHash (Charikar 2002): two sketches at angle t agree in one bit with chance p = 1 - t / pi, in a table of b bits with p^b, in one of
T tables with 1 - (1 - p^b)^T. A record occupies `buckets` of each table: those that its own examples fell into most often.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch


class SketchTable:
    """Records 0, 1, ... with a mean sketch each. `look_up` gives the record of the nearest mean among the candidates, or -1."""

    def __init__(self, m: int, *, tables: int, bits: int, buckets: int, threshold: float, rng: np.random.Generator, run):
        if tables < 1 or not 1 <= bits <= 60 or buckets < 1 or not -1 <= threshold <= 1:
            raise ValueError(f"tables={tables} >= 1, bits={bits} in 1..60, buckets={buckets} >= 1, threshold={threshold} in -1..1")
        self.m, self.tables, self.bits, self.buckets, self.threshold, self.run = m, tables, bits, buckets, threshold, run
        self.planes = run.put(rng.standard_normal((m, tables * bits)).astype(np.float32))
        self.powers = run.put(2 ** np.arange(bits, dtype=np.int64))
        self.sums = np.zeros((0, m), np.float64)  # of the sketches of each record
        self.counts = np.zeros(0, np.int64)
        self.seen: list[list[Counter]] = []  # for each record and table, how often which key
        self.file()

    def keys(self, sketches) -> torch.Tensor:
        """int64 [n, tables]"""
        signs = (sketches @ self.planes > 0).view(len(sketches), self.tables, self.bits)
        return (signs * self.powers).sum(-1)

    def add(self, sketches) -> int:
        """A new record from its first sketches [n, m]; its number."""
        self.sums = np.concatenate((self.sums, np.zeros((1, self.m))))
        self.counts = np.append(self.counts, 0)
        self.seen.append([Counter() for _ in range(self.tables)])
        self.learn(len(self.counts) - 1, sketches)
        self.file()
        return len(self.counts) - 1

    def learn(self, record: int, sketches) -> None:
        """More sketches of a record: its mean and its buckets follow when it is filed next."""
        self.sums[record] += self.run.numpy(sketches).sum(0)
        self.counts[record] += len(sketches)
        for seen, column in zip(self.seen[record], self.run.numpy(self.keys(sketches)).T):
            for key, times in zip(*np.unique(column, return_counts=True)):
                seen[int(key)] += int(times)

    def file(self) -> None:
        """Bring the arrays of the look-up up to date: per table sorted keys and their records, padded by keys that nobody has."""
        entries = [
            sorted((key, record) for record, seen in enumerate(self.seen) for key, _ in seen[t].most_common(self.buckets))
            for t in range(self.tables)
        ]
        most = max(1, *map(len, entries)) if entries else 1
        keys, records = np.full((self.tables, most), 2**62), np.zeros((self.tables, most), np.int64)
        for t, rows in enumerate(entries):
            for i, (key, record) in enumerate(rows):
                keys[t, i], records[t, i] = key, record
        self.widest = max([1, *(n for rows in entries for n in Counter(key for key, _ in rows).values())])
        means = self.sums / np.maximum(np.linalg.norm(self.sums, axis=1, keepdims=True), 1e-12)
        self.stored = {"keys": keys, "records": records, "means": means.astype(np.float32)}
        self._load()

    def _load(self) -> None:
        self.sorted, self.records, self.means = (self.run.put(self.stored[name]) for name in ("keys", "records", "means"))

    def look_up(self, sketches):
        """int64 [n]: for each sketch the accepted record of the nearest mean, -1 where no bucket has any. All at once."""
        n = len(sketches)
        if not len(self.counts):
            return torch.full((n,), -1, device=sketches.device)
        keys = self.keys(sketches).T.contiguous()
        first = torch.searchsorted(self.sorted, keys)[..., None] + torch.arange(self.widest, device=keys.device)
        first = first.clamp(max=self.sorted.shape[1] - 1)  # [tables, n, widest]
        tables = torch.arange(self.tables, device=keys.device)[:, None, None]
        real = (self.sorted[tables, first] == keys[..., None]).movedim(1, 0).flatten(1)
        found = self.records[tables, first].movedim(1, 0).flatten(1)  # [n, tables x widest]
        cosine = (self.means[found] @ sketches[..., None])[..., 0] / sketches.norm(dim=1, keepdim=True).clamp(min=1e-12)
        best, place = cosine.masked_fill(~real, -2.0).max(1)
        return torch.where(best >= self.threshold, found.gather(1, place[:, None])[:, 0], -1)

    def flops(self, n: float) -> float:
        """Matmul-like FLOPs of a look-up of n sketches: hashing, and comparing with every place of the buckets, empty or not."""
        return 2.0 * n * self.m * self.tables * (self.bits + self.widest) if len(self.counts) else 0.0

    def bytes(self) -> int:
        """As it is stored: a key and a record number for each entry, fp16 means."""
        return int(16 * (self.stored["keys"] < 2**62).sum() + 2 * self.means.numel())

    def arrays(self) -> dict[str, np.ndarray]:
        return {"planes": self.run.numpy(self.planes), "counts": self.counts, "widest": np.array(self.widest), **self.stored}

    def restore(self, arrays) -> None:
        """Ready to look up again; what it has learned is closed."""
        self.planes, self.counts, self.widest = self.run.put(arrays["planes"]), arrays["counts"], int(arrays["widest"])
        self.stored = {name: arrays[name] for name in ("keys", "records", "means")}
        self._load()
