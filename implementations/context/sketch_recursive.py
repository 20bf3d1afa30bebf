"""Recursive sketches: a call in a fixed number of numbers, from which its parts can be read again, with noise.

Ghazi, Panigrahy, Wang, Recursive Sketches for Modular Deep Learning, arXiv 1905.12730. The sketch of a module's call is
s = R1 attributes + R2 (mean over its parts of R_i s_i), with random orthonormal R; transposes undo it. Recovering one of k unit
vectors of a numbers from m has the error sqrt((k - 1) a / m), and sqrt(((k - 1) / p + 1 / p - 1) a / m) where a share p is kept.
Here plain rotations, not the paper's (I + R) / 2.
"""

from __future__ import annotations

import numpy as np


def orthonormal(m: int, a: int, rng: np.random.Generator) -> np.ndarray:
    """[m, a] with orthonormal columns, uniformly random."""
    if a > m:
        raise ValueError(f"{a} orthonormal columns do not fit into {m} numbers")
    q, r = np.linalg.qr(rng.standard_normal((m, a)))
    return (q * np.sign(np.diag(r))).astype(np.float32)


def combine(parts: list[np.ndarray], matrices: list[np.ndarray]) -> np.ndarray:
    """s = (1 / k) sum R_i x_i"""
    return sum(matrix @ part for matrix, part in zip(matrices, parts)) / len(parts)


def recover(sketch: np.ndarray, i: int, matrices: list[np.ndarray], k: int) -> np.ndarray:
    """k R_i^T s: unbiased."""
    return k * (matrices[i].T @ sketch)


def erase(sketch: np.ndarray, kept: float, rng: np.random.Generator) -> np.ndarray:
    """A random share `kept` of the numbers stays, scaled up by its inverse; the rest is 0."""
    if not 0 < kept <= 1:
        raise ValueError(f"a share in (0, 1] can be kept, not {kept}")
    return sketch * (rng.random(sketch.shape) < kept) / kept


class Sketcher:
    """The matrices of one library: attributes [a], up to `parts` parts a call, sketches of m numbers."""

    def __init__(self, m: int, a: int, parts: int, rng: np.random.Generator):
        self.own, self.below = orthonormal(m, a, rng), orthonormal(m, m, rng)
        self.slots = [orthonormal(m, m, rng) for _ in range(parts)]

    def sketch(self, attributes: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
        """fp16 [m] of a call with these attributes, whose parts have these sketches."""
        found = self.own @ attributes
        if parts:
            found = found + self.below @ combine(parts, self.slots)
        return found.astype(np.float16)

    def attributes(self, sketch: np.ndarray) -> np.ndarray:
        return self.own.T @ sketch.astype(np.float32)

    def part(self, sketch: np.ndarray, i: int, k: int) -> np.ndarray:
        """The sketch of part i of k, with noise."""
        return recover(self.below.T @ sketch.astype(np.float32), i, self.slots, k)


def library(sketcher: Sketcher, attributes: np.ndarray, parents: list[list[int]]) -> np.ndarray:
    """Sketches fp16 [modules, m] of a library whose modules call earlier ones."""
    found: list[np.ndarray] = []
    for own, below in zip(attributes, parents):
        found.append(sketcher.sketch(own, [found[j].astype(np.float32) for j in below]))
    return np.array(found)


def recovery_error(sketcher: Sketcher, sketches: np.ndarray, attributes: np.ndarray, kept: float, rng) -> float:
    """Mean distance of the recovered attributes from the true ones."""
    return float(np.mean([np.linalg.norm(sketcher.attributes(erase(s, kept, rng)) - a) for s, a in zip(sketches, attributes)]))


def parts_recognised(sketcher: Sketcher, sketches: np.ndarray, parents: list[list[int]]) -> float:
    """Share of the parts that unrolling a call names rightly: the nearest of all stored sketches by cosine. 1 without any."""
    unit = sketches.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    right = [
        int(np.argmax(unit @ sketcher.part(sketches[i], slot, len(below)))) == j
        for i, below in enumerate(parents)
        for slot, j in enumerate(below)
    ]
    return float(np.mean(right)) if right else 1.0
