"""Score-aware quantisation: the weight eta of the error along a point, and codebooks for it (numpy only).

Guo et al., "Accelerating large-scale inference with anisotropic vector quantization" (ICML 2020), arXiv:1908.10396. The error of
a point's score matters for queries that score high with it. For a query uniform on the sphere that counts from T on, the loss is
h_par |r_par|^2 + h_orth |r_orth|^2, where r_par is the residual's part along the point itself.
"""

from __future__ import annotations

import numpy as np

from .lut16 import WORDS, decode, encode

NODES = 256  # Gauss-Legendre nodes of the integrals
MOST = 0.98  # larger thresholds (short points) are cut here: the weight grows without bound as T goes to 1


def eta_integral(threshold, d: int) -> np.ndarray:
    """h_par / h_orth for unit points in d dimensions, exactly: with t = cos(a), integrals of cos^2 sin^(d-2) and sin^d over
    0 <= a <= arccos T, the first times d - 1. Never below 1."""
    if d < 2:
        return np.ones_like(np.asarray(threshold, float))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    top = np.arccos(np.clip(np.asarray(threshold, float), 0, MOST))[..., None]
    angle = 0.5 * top * (nodes + 1)
    power = np.exp((d - 2) * np.log(np.sin(angle) / np.sin(top)))  # relative to the end, or d = 1000 would underflow
    along = (weights * np.cos(angle) ** 2 * power).sum(-1)
    across = (weights * np.sin(angle) ** 2 * power).sum(-1)
    return np.maximum((d - 1) * along / across, 1)


def eta_limit(threshold, d: int) -> np.ndarray:
    """The limit for large d: (d - 1) T^2 / (1 - T^2). Below 1 it would favour the wrong direction: cut there."""
    squared = np.clip(np.asarray(threshold, float), 0, MOST) ** 2
    return np.maximum((d - 1) * squared / (1 - squared), 1)


def weights(vectors: np.ndarray, threshold: float, form: str, *, cosine: bool) -> np.ndarray:
    """eta of every point, float32 [n]. cosine: T is a cosine, the same for all. Else T is a score against a unit query in units of
    the points' root mean square length, so that a point of length |x| has T / |x|."""
    if form not in ("integral", "limit"):
        raise ValueError(f"eta must be 'integral' or 'limit', not '{form}'")
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0, 1), not {threshold}")
    eta, d = (eta_integral if form == "integral" else eta_limit), vectors.shape[1]
    if cosine:
        return np.full(len(vectors), eta(threshold, d), np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    own = np.minimum(threshold * np.sqrt((length**2).mean()) / np.where(length > 0, length, 1), MOST)
    grid = np.linspace(own.min(), own.max(), 512)
    return np.interp(own, grid, eta(grid, d)).astype(np.float32)


def loss(residuals, directions, eta, codes, codebook) -> np.ndarray:
    """|r - c|^2 + (eta - 1) <r - c, u>^2 of every point, float64 [n]."""
    off = residuals.astype(np.float64) - decode(codes, codebook)
    squared = np.einsum("nd,nd->n", off, off)
    return squared if directions is None else squared + (eta - 1.0) * np.einsum("nd,nd->n", off, directions) ** 2


def train(residuals: np.ndarray, width: int, iterations: int, rng) -> np.ndarray:
    """A codebook float32 [blocks, width, 16] by k-means in every block; residuals [n, blocks * width]."""
    n, dims = residuals.shape
    blocks = dims // width
    start = residuals[rng.permutation(n)[:WORDS] if n >= WORDS else np.arange(WORDS) % n]
    book = np.ascontiguousarray(start.reshape(WORDS, blocks, width).transpose(1, 2, 0), np.float32)
    for _ in range(iterations):
        codes = encode(residuals, None, None, book, 0)
        at = codes + WORDS * np.arange(blocks)
        size = np.bincount(at.ravel(), minlength=blocks * WORDS).reshape(blocks, WORDS)
        for t in range(width):
            sums = np.bincount(at.ravel(), weights=residuals[:, t::width].ravel(), minlength=blocks * WORDS)
            book[:, t] = np.where(size > 0, sums.reshape(blocks, WORDS) / np.maximum(size, 1), book[:, t])
        lost = np.argwhere(size == 0)
        if len(lost):  # moved to random rows, which costs nothing: nobody used them
            rows = residuals.reshape(n, blocks, width)
            book[lost[:, 0], :, lost[:, 1]] = rows[rng.integers(n, size=len(lost)), lost[:, 0]]
    return book


def refit(residuals, directions, eta, codes, codebook, *, steps: int = 30) -> np.ndarray:
    """The codebook that minimises the anisotropic loss for fixed codes (Theorem 4.2, for products of blocks): solves
    sum B'A B c = sum B'A r, where B puts codewords into place and A = I + (eta - 1) u u', by conjugate gradients.

    For residual = point and one block this is c = (sum A)^-1 eta sum x. Starts from `codebook`; the loss never rises.
    """
    blocks, width, _ = codebook.shape
    at = (codes + WORDS * np.arange(blocks)).ravel()
    extra = (np.asarray(eta, np.float64) - 1)[:, None]

    def weigh(rows):
        """B'A of rows [n, blocks * width], as a codebook."""
        rows = rows + extra * np.einsum("nd,nd->n", rows, directions)[:, None] * directions
        out = np.empty((blocks, width, WORDS))
        for t in range(width):
            out[:, t] = np.bincount(at, weights=rows[:, t::width].ravel(), minlength=blocks * WORDS).reshape(blocks, WORDS)
        return out

    book = codebook.astype(np.float64)
    left = weigh(residuals - decode(codes, book))
    # Codewords of one block do not mix: dividing by their counts makes the plain part of the system the identity.
    count = np.maximum(np.bincount(at, minlength=blocks * WORDS).reshape(blocks, 1, WORDS), 1)
    scaled = left / count
    towards, power = scaled, (left * scaled).sum()
    floor = 1e-12 * power
    for _ in range(steps):
        if power <= floor:
            break
        image = weigh(decode(codes, towards))
        step = power / max((towards * image).sum(), 1e-300)
        book, left = book + step * towards, left - step * image
        scaled = left / count
        before, power = power, (left * scaled).sum()
        towards = scaled + power / before * towards
    return book.astype(np.float32)
