"""What the task knows and no method sees made: synthetic vectors, true distances and the exact answer (numpy only)."""

from __future__ import annotations

import numpy as np

METRICS = ("l2", "ip", "cosine")
K = 10  # neighbours asked for
BLOCK = 4096  # base rows scored at once: 1000 queries x 4096 float64 scores are 33 MB
LARGE = 1 << 28  # float64 scores of a block on a device: 2 GiB


def clustered(rng: np.random.Generator, rows: int, d: int, *, centers: int, rank: int, spread: float, noise: float) -> np.ndarray:
    """Overlapping clusters of unit vectors, float32 [rows, d].

    Centres and the scatter around them share one power-law spectrum (i + 1)^-0.5 in a random subspace of dimension `rank`;
    cluster sizes follow Zipf's law; isotropic noise of norm about `noise` is added. `spread` sets the difficulty: well separated
    clusters (spread near 0) make every partitioning look absurdly good.
    """
    if not 1 <= rank <= d or centers < 1 or rows < 1 or spread < 0 or noise < 0:
        raise ValueError(
            f"clustered vectors need 1 <= rank <= d, centers >= 1, rows >= 1, spread >= 0 and noise >= 0 ({rank=}, {d=})"
        )
    subspace = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    spectrum = np.arange(1, rank + 1) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    middle = rng.standard_normal((centers, rank)) * spectrum
    share = 1.0 / np.arange(1, centers + 1)
    member = rng.choice(centers, size=rows, p=share / share.sum())
    inner = middle[member] + spread * spectrum * rng.standard_normal((rows, rank))
    out = np.empty((rows, d), np.float32)
    for start in range(0, rows, BLOCK):  # a million rows in float64 would be the largest array of the whole trial
        vectors = inner[start : start + BLOCK] @ subspace.T
        vectors += noise / np.sqrt(d) * rng.standard_normal(vectors.shape)
        out[start : start + BLOCK] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; a row of zeros stays zero, so that its cosine with anything is 0."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(length > 0, length, 1)[:, None]).astype(vectors.dtype)


def distances(metric: str, queries: np.ndarray, base: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """True distances float64 [q, k] of the rows `ids` [q, k]: L2 with its root and by differences, -<q,x>, or 1 - cosine."""
    out = np.empty(ids.shape)
    for start in range(0, len(queries), 64):
        part = slice(start, start + 64)
        query, row = queries[part, None].astype(np.float64), base[ids[part]].astype(np.float64)
        if metric == "l2":
            out[part] = np.sqrt(((query - row) ** 2).sum(-1))
        elif metric == "ip":
            out[part] = -(query * row).sum(-1)
        else:
            length = np.sqrt((query**2).sum(-1) * (row**2).sum(-1))
            out[part] = 1 - (query * row).sum(-1) / np.where(length > 0, length, 1)
    return out


def nearest(
    metric: str, queries: np.ndarray, base: np.ndarray, depth: int, device: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The exact answer by float64 arithmetic: ids int64 [q, depth], their distances ascending, and the largest distance [q].

    Ranking uses |x|^2/2 - <q,x>, whose error in float64 (1e-16 of the squared norms) is far below the tolerance of any rule
    of recall; the distances themselves are recomputed by differences. `device` ranks with torch, in float64 as well: ten thousand
    queries of a million rows take minutes on a CPU.
    """
    if not 1 <= depth <= len(base):
        raise ValueError(f"the exact answer has between 1 and {len(base)} (rows of the base) entries, not {depth}")
    ranking = unit(base) if metric == "cosine" else base
    ids, far_id = on_device(metric, queries, ranking, depth, device) if device else on_host(metric, queries, ranking, depth)
    true = distances(metric, queries, base, ids)
    order = np.argsort(true, axis=1, kind="stable")
    farthest = distances(metric, queries, base, far_id[:, None])[:, 0]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(true, order, 1), farthest


def on_host(metric: str, queries: np.ndarray, ranking: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the `depth` best rows of `ranking`, in any order, and of the worst one."""
    query = queries.astype(np.float64)
    best = np.empty((len(query), 0))
    ids = np.empty((len(query), 0), np.int64)
    far, far_id = np.full(len(query), -np.inf), np.zeros(len(query), np.int64)
    for start in range(0, len(ranking), BLOCK):
        row = ranking[start : start + BLOCK].astype(np.float64)
        score = -(query @ row.T)
        if metric == "l2":
            score += 0.5 * (row**2).sum(1)
        last = score.argmax(1)
        value = np.take_along_axis(score, last[:, None], 1)[:, 0]
        far_id = np.where(value > far, start + last, far_id)
        far = np.maximum(value, far)
        best = np.concatenate([best, score], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(np.arange(start, start + len(row)), score.shape)], axis=1)
        if best.shape[1] > depth:
            keep = np.argpartition(best, depth - 1, axis=1)[:, :depth]
            best, ids = np.take_along_axis(best, keep, 1), np.take_along_axis(ids, keep, 1)
    return ids, far_id


def on_device(metric: str, queries: np.ndarray, ranking: np.ndarray, depth: int, device: str) -> tuple[np.ndarray, np.ndarray]:
    """The same by torch."""
    import torch

    query = torch.from_numpy(queries).to(device).double()
    best, ids = query.new_empty((len(query), 0)), torch.empty((len(query), 0), dtype=torch.int64, device=device)
    far, far_id = query.new_full((len(query),), -torch.inf), torch.zeros(len(query), dtype=torch.int64, device=device)
    step = max(1, LARGE // max(1, len(query)))
    for start in range(0, len(ranking), step):
        row = torch.from_numpy(ranking[start : start + step]).to(device).double()
        score = torch.mm(-query, row.T)
        if metric == "l2":
            score += 0.5 * row.square().sum(1)
        value, last = score.max(1)
        far_id = torch.where(value > far, start + last, far_id)
        far = torch.maximum(value, far)
        value, place = score.topk(min(depth, len(row)), largest=False, sorted=False)
        best, ids = torch.cat((best, value), 1), torch.cat((ids, start + place), 1)
        if best.shape[1] > depth:
            best, keep = best.topk(depth, largest=False, sorted=False)
            ids = ids.gather(1, keep)
    return ids.cpu().numpy(), far_id.cpu().numpy()
