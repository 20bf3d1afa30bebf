"""Partitions for the numpy and compiled methods: Lloyd's k-means and the second, spilled assignment (numpy only)."""

from __future__ import annotations

import numpy as np

ROWS = 8192  # rows scored at once


def assign(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row, int64 [n], and its squared distance, float32 [n]."""
    bias, member, cost = 0.5 * np.einsum("cd,cd->c", centres, centres), [], []
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        score = part @ centres.T
        np.subtract(bias, score, out=score)
        best = score.argmin(1)
        member.append(best)
        cost.append(2 * score[np.arange(len(part)), best] + np.einsum("nd,nd->n", part, part))
    return np.concatenate(member), np.maximum(np.concatenate(cost), 0)


def kmeans(rows: np.ndarray, count: int, iterations: int, rng) -> np.ndarray:
    """Centres float32 [count, d]: from distinct random rows; a centre that lost all rows moves to a row that is served worst."""
    centres = rows[np.sort(rng.permutation(len(rows))[:count])].copy()
    for _ in range(iterations):
        member, cost = assign(rows, centres)
        centres, size = means(rows, member, count)
        empty = np.flatnonzero(size == 0)
        if len(empty):
            centres[empty] = rows[np.argpartition(-cost, len(empty) - 1)[: len(empty)]]
    return centres


def means(rows: np.ndarray, member: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each partition's rows, float32 [count, d] (zeros where empty), and the sizes [count]."""
    order = np.argsort(member, kind="stable")
    size = np.bincount(member, minlength=count)
    filled = np.flatnonzero(size)
    sums = np.zeros((count, rows.shape[1]), np.float32)
    sums[filled] = np.add.reduceat(rows[order], (np.cumsum(size) - size)[filled], axis=0)
    return sums / np.maximum(size, 1)[:, None].astype(np.float32), size


def spill(rows: np.ndarray, centres: np.ndarray, primary: np.ndarray, amplification: float) -> np.ndarray:
    """A second partition for every row, int64 [n], never the primary: least |r'|^2 + amplification <r, r'>^2 / |r|^2.

    r = x - c is the primary residual, r' = x - c' the other one (Sun et al., arXiv:2404.00774, Theorem 3.1). 0 gives the second
    nearest centre: the naive spill. A row that lies on its centre has no direction to avoid and takes the second nearest too.
    """
    if len(centres) < 2:
        raise ValueError("spilling needs at least two partitions")
    bias, chosen = np.einsum("cd,cd->c", centres, centres), []
    for start in range(0, len(rows), ROWS):
        part, own = rows[start : start + ROWS], primary[start : start + ROWS]
        residual = part - centres[own]
        length = np.sqrt(np.einsum("nd,nd->n", residual, residual))
        direction = residual / np.where(length > 1e-12, length, np.inf)[:, None]
        loss = bias - 2 * (part @ centres.T)
        if amplification:
            along = np.einsum("nd,nd->n", direction, part)[:, None] - direction @ centres.T
            loss += np.float32(amplification) * along**2
        loss[np.arange(len(part)), own] = np.inf
        chosen.append(loss.argmin(1))
    return np.concatenate(chosen)
