"""Gallery tables for each size, queries to match, the exact scan of one table and the re-ranking of a shortlist. PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize

from .material import columns
from .retrieval import EMBEDDINGS, Retriever

CHUNK = 32  # scores behind one maximum
SCRATCH = 1 << 25  # scores held at once


class TableRetriever(Retriever):
    """Holds one table [n, m] of unit rows, contiguous, for each size of `stored`: a scan of m numbers reads no others."""

    def stored(self) -> tuple[int, ...]:
        return self.sizes

    def build(self, given, run):
        if self.embedding not in EMBEDDINGS:
            raise ValueError(f"embedding='{self.embedding}' (known: {', '.join(EMBEDDINGS)})")
        self.sizes = given.sizes
        self.family = "plain" if self.embedding == "pca" else self.embedding
        gallery, self.basis, self.mean = given.gallery[self.family], None, None
        if self.embedding == "pca":
            mean, basis = principal(gallery)
            gallery, self.mean, self.basis = (gallery - mean) @ basis, run.put(mean), run.put(basis)
        self.rows = len(gallery)
        self.tables = {}
        for m in self.stored():
            part = run.put(np.ascontiguousarray(gallery[:, columns(self.family, m, self.sizes)]))
            self.tables[m] = normalize(part)

    def save(self, folder):
        arrays = {f"table-{m}": self.run.numpy(table) for m, table in self.tables.items()}
        if self.basis is not None:
            arrays |= {"basis": self.run.numpy(self.basis), "mean": self.run.numpy(self.mean)}
        np.savez(folder / "tables.npz", **arrays)

    def load(self, folder, given):
        self.sizes, self.family = given.sizes, "plain" if self.embedding == "pca" else self.embedding
        with np.load(folder / "tables.npz", allow_pickle=False) as file:
            arrays = {name: self.run.put(file[name]) for name in file.files}
        self.basis, self.mean = arrays.pop("basis", None), arrays.pop("mean", None)
        self.tables = {int(name.removeprefix("table-")): table for name, table in arrays.items()}
        self.rows = len(given.gallery[self.family])

    def parameters(self) -> int:
        return sum(table.numel() for table in self.tables.values())

    def queries(self, batch, largest: int):
        """A function size -> unit queries [q, size], for sizes up to `largest`. ValueError for queries that do not fit."""
        full, width = batch[self.family], columns(self.family, self.sizes[-1], self.sizes).stop
        if full.ndim != 2 or full.shape[1] != width:
            raise ValueError(f"queries of shape {tuple(full.shape)} do not fit embeddings of {width} numbers")
        if not torch.isfinite(full.sum()):
            raise ValueError("the queries hold NaN or infinity")
        if self.basis is not None:
            full = (full - self.mean) @ self.basis[:, :largest]
        return lambda m: normalize(full[:, columns(self.family, m, self.sizes)])

    def turning_flops(self, queries: int, largest: int) -> float:
        return 2.0 * queries * self.sizes[-1] * largest if self.embedding == "pca" else 0.0


def principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean [d], directions [d, d] as columns, the largest variance first), float32."""
    mean = rows.mean(0, dtype=np.float64)
    centred = rows - mean
    directions = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return mean.astype(np.float32), np.ascontiguousarray(directions, dtype=np.float32)


def scan(table, queries, count: int):
    """The rows of the `count` largest scores of every query, best first, int64 [q, count]. Exact.

    The `count` best scores lie in the `count` chunks with the largest maxima: a sort-like selection over all scores would cost more
    than their product at small sizes. ValueError where the table is too short.
    """
    if not 1 <= count <= len(table):
        raise ValueError(f"a gallery of {len(table)} rows has no shortlist of {count}")
    at_once = max(1, SCRATCH // len(table))
    return torch.cat([_scan(table, part, count) for part in queries.split(at_once)])


def _scan(table, queries, count: int):
    scores = queries @ table.T
    chunks = len(table) // CHUNK
    if count * CHUNK * 2 > len(table):
        return scores.topk(count).indices
    body = chunks * CHUNK
    # Chunk c holds columns c, c + chunks, ...: maxima are taken over rows of a [CHUNK, chunks] view, without strides.
    chosen = scores[:, :body].unflatten(1, (CHUNK, chunks)).amax(1).topk(count, sorted=False).indices
    place = (chosen[:, :, None] + torch.arange(0, body, chunks, device=scores.device)).flatten(1)
    rest = torch.arange(body, len(table), device=scores.device).expand(len(queries), -1)
    place = torch.cat((place, rest), 1)
    return place.gather(1, scores.gather(1, place).topk(count).indices)


def rerank(table, queries, rows, count: int):
    """The `count` of the shortlists rows [q, s] with the largest scores in another table, best first."""
    scores = torch.bmm(table[rows], queries[:, :, None])[:, :, 0]
    return rows.gather(1, scores.topk(min(count, rows.shape[1])).indices)
