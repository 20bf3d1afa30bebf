"""The measured table: a three-level index (partitions, 4-bit codes, float vectors) answers every query at every knob setting.

What is kept is what the index really returns, found without a search per setting: a true neighbour comes back exactly when its
partition is among the `probes` first ones and fewer than `rescored` points of those partitions have a better code score. Codes are
decoded and multiplied, which ranks as look-up tables do but for their rounding. Bytes are counted as read by one query alone.
"""

from __future__ import annotations

import numpy as np

K = 10
WORDS = 16  # codewords of a block: 4 bits


def clustered(rng, rows: int, d: int, *, centers: int, rank: int, spread: float, noise: float) -> np.ndarray:
    """Overlapping clusters of unit vectors, float32 [rows, d]: a power-law spectrum in a random subspace, Zipf cluster sizes."""
    subspace = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    spectrum = np.arange(1, rank + 1) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    share = 1 / np.arange(1, centers + 1)
    member = rng.choice(centers, size=rows, p=share / share.sum())
    middle = rng.standard_normal((centers, rank)) * spectrum
    inner = middle[member] + spread * spectrum * rng.standard_normal((rows, rank))
    vectors = inner @ subspace.T + noise / np.sqrt(d) * rng.standard_normal((rows, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of every row, int64 [n]."""
    bias = 0.5 * np.einsum("cd,cd->c", centres, centres)
    return np.concatenate([(bias - part @ centres.T).argmin(1) for part in np.array_split(rows, max(1, len(rows) // 8192))])


def kmeans(rows: np.ndarray, count: int, iterations: int, rng) -> np.ndarray:
    """Centres float32 [count, d] by Lloyd's iterations; a centre without rows stays where it was."""
    centres = rows[np.sort(rng.permutation(len(rows))[:count])].copy()
    for _ in range(iterations):
        member = nearest(rows, centres)
        order, size = np.argsort(member, kind="stable"), np.bincount(member, minlength=len(centres))
        filled = np.flatnonzero(size)
        sums = np.add.reduceat(rows[order], (np.cumsum(size) - size)[filled], axis=0)
        centres[filled] = sums / size[filled, None].astype(np.float32)
    return centres


def coded(rows: np.ndarray, width: int, iterations: int, rng) -> np.ndarray:
    """Rows as their 4-bit product codes give them back, float32 [n, d]; codebooks by k-means in every block."""
    out = np.empty_like(rows)
    for start in range(0, rows.shape[1], width):
        part = np.ascontiguousarray(rows[:, start : start + width])
        book = kmeans(part, WORDS, iterations, rng)
        out[:, start : start + width] = book[nearest(part, book)]
    return out


def levels(low: int, high: int, count: int) -> np.ndarray:
    """Distinct integers from `low` to `high`, even on a logarithmic scale, at most `count`."""
    return np.unique(np.geomspace(low, high, count).round().astype(np.int64))


def build(base: np.ndarray, queries: np.ndarray, *, width: int, grid: tuple[int, int], seed: int) -> dict:
    """The table. Q queries, A numbers of probes, B numbers of rescored points, n rows, C partitions:

    probes [A], rescored [B]: the grid. hits uint8 [Q, A, B]: how many of the K true neighbours come back. cost float64 [Q, A, B]:
    bytes read, as a share of a scan of all float vectors. probe_rank, code_rank int32 [Q, K]: of each true neighbour, from 0: rank
    of its partition, and rank of its code score among all n rows. visited int32 [Q, A]: points in the first `probes` partitions.
    rank_cost: bytes of finding the ranks for one query, same unit. center_share, code_share, vector_share: bytes of all centres, of
    one code and of one vector, same unit.
    """
    rng = np.random.default_rng([seed, 3])
    n, d = base.shape
    if n < 100 or len(queries) < 4 or width < 1:
        raise ValueError(f"a table needs at least 100 rows, 4 queries and width >= 1, not {n}, {len(queries)} and {width}")
    partitions = max(4, round(n**0.5))
    centres = kmeans(base, partitions, 10, rng)
    member = nearest(base, centres)
    size = np.bincount(member, minlength=partitions)
    decoded = centres[member] + coded(base - centres[member], width, 8, rng)
    probes, rescored = levels(1, partitions, grid[0]), levels(K, max(n // 10, 2 * K), grid[1])
    share = 1 / (n * d * 4)
    code, vector, center = -(-d // width) / 2 * share, 4 * d * share, partitions * d * 4 * share
    own, decoded_half = np.einsum("nd,nd->n", base, base) / 2, np.einsum("nd,nd->n", decoded, decoded) / 2
    center_half = np.einsum("cd,cd->c", centres, centres) / 2
    hits = np.zeros((len(queries), len(probes), len(rescored)), np.uint8)
    visited = np.zeros((len(queries), len(probes)), np.int32)
    probe_rank, code_rank = np.zeros((len(queries), K), np.int32), np.zeros((len(queries), K), np.int32)
    for q, query in enumerate(queries):
        true = np.argpartition(own - base @ query, K - 1)[:K]
        near = np.argsort(center_half - centres @ query, kind="stable")
        rank = np.empty(partitions, np.int64)
        rank[near] = np.arange(partitions)
        order = np.argsort(decoded_half - decoded @ query, kind="stable")
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        probe_rank[q], code_rank[q] = rank[member[true]], place[true]
        visited[q] = np.cumsum(size[near])[probes - 1]
        # Points with a better code score that lie in the first partitions: rows in order of score, counted for each grid value.
        deepest = int(code_rank[q].max())
        seen = np.zeros((deepest + 1, len(probes)), np.int32)
        np.cumsum(rank[member[order[:deepest]], None] < probes, axis=0, out=seen[1:])
        found = probe_rank[q][:, None] < probes
        hits[q] = (found[:, :, None] & (seen[code_rank[q]][:, :, None] < rescored)).sum(0)
    read = np.minimum(visited[:, :, None], rescored)
    return {
        "probes": probes, "rescored": rescored, "hits": hits, "visited": visited, "probe_rank": probe_rank, "code_rank": code_rank,
        "cost": center + visited[:, :, None] * code + read * vector, "rank_cost": center + n * code, "rows": n,
        "center_share": center, "code_share": code, "vector_share": vector,
    }  # fmt: skip
