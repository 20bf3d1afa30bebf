"""FLOPs of single operations by formula: one add or one multiply is 1, so a real multiply-add is 2 and a complex one is 8.

Pure functions of shapes. Additions of a bias, scalings and the "-1" of a sum of n terms are left out, as everywhere in the
literature. Causal masks never halve attention, and zero padding of a convolution counts, because dense kernels multiply it.

Sources: LAPACK Working Note 41 (dense factorisations), Golub & Van Loan, Matrix Computations, 3rd ed., sections 5.4, 7.5 and 8.3
(eigenvalues and singular values: nominal, since those iterate until they converge), Frigo & Johnson's 5 N log2 N for the FFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2, prod

COMPLEX = 4  # a complex multiply-add is 4 multiplies and 4 adds against 1 and 1


def matmul(m: float, k: float, n: float, batch: float = 1) -> float:
    """[batch, m, k] @ [batch, k, n]."""
    return 2.0 * batch * m * k * n


def convolution(batch: int, spatial: Sequence[int], weight: Sequence[int]) -> float:
    """Forward, gradient of the input, or gradient of the weight: all three do the same number of multiply-adds.

    `spatial` is the output's extent, of a transposed convolution the input's. `weight` is as the framework holds it,
    [out, in / groups, ...] or transposed [in, out / groups, ...], so that groups are in it already.
    """
    return 2.0 * batch * prod(spatial) * prod(weight)


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> float:
    """q [b, h, s, d], k [b, h', t, d], v [b, h', t, e] with h' dividing h: scores 2 b h s t d, weighted sum 2 b h s t e."""
    *batch, s, d = query
    return 2.0 * prod(batch) * s * key[-2] * (d + value[-1])


def attention_backward(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> float:
    """Five products, as fused kernels do it: scores again, gradients of weights, v, q and k."""
    *batch, s, d = query
    return 2.0 * prod(batch) * s * key[-2] * (3 * d + 2 * value[-1])


def fft(shape: Sequence[int], dims: Sequence[int]) -> float:
    """Complex transform of an array of `shape` over `dims`: 5 N log2 n for each dimension of length n. Already real FLOPs."""
    return sum(5.0 * prod(shape) * log2(shape[d]) for d in dims if shape[d] > 1)


def real_fft(real_shape: Sequence[int], half_shape: Sequence[int], dims: Sequence[int]) -> float:
    """Real to complex or back: half a complex transform over the last of `dims`, whole ones over the others on the half spectrum."""
    *others, last = dims
    n = real_shape[last]
    return (2.5 * prod(real_shape) * log2(n) if n > 1 else 0.0) + fft(half_shape, others)


def lu(m: int, n: int) -> float:
    """m n^2 - n^3 / 3 for m >= n; 2/3 n^3 for a square matrix."""
    m, n = max(m, n), min(m, n)
    return m * n * n - n**3 / 3.0


def cholesky(n: int) -> float:
    return n**3 / 3.0


def triangular_solve(n: int, columns: int) -> float:
    return float(n * n * columns)


def solve(n: int, columns: int) -> float:
    """LU, then a forward and a backward substitution."""
    return lu(n, n) + 2.0 * n * n * columns


def inverse(n: int) -> float:
    return 2.0 * n**3


def cholesky_inverse(n: int) -> float:
    """From the factor."""
    return 2.0 * n**3 / 3.0


def qr(m: int, n: int) -> float:
    """The Householder factorisation alone: 2 n^2 (m - n / 3) for m >= n."""
    m, n = max(m, n), min(m, n)
    return 2.0 * n * n * (m - n / 3.0)


def form_q(m: int, columns: int, reflectors: int) -> float:
    """Q [m, columns] out of its reflectors (LAPACK orgqr)."""
    k = reflectors
    return 4.0 * m * columns * k - 2.0 * (m + columns) * k * k + 4.0 * k**3 / 3.0


def apply_q(m: int, columns: int, reflectors: int) -> float:
    """Q^T times [m, columns] from its reflectors (LAPACK ormqr)."""
    return 2.0 * columns * reflectors * (2 * m - reflectors)


def least_squares(m: int, n: int, columns: int) -> float:
    """By QR, m >= n; by LQ otherwise, at the same cost."""
    m, n = max(m, n), min(m, n)
    return qr(m, n) + apply_q(m, columns, n) + triangular_solve(n, columns)


def eigh(n: int, vectors: bool) -> float:
    """Nominal: 9 n^3 with vectors, 4/3 n^3 without."""
    return 9.0 * n**3 if vectors else 4.0 * n**3 / 3.0


def eig(n: int, vectors: bool) -> float:
    """Nominal: 25 n^3 with vectors, 10 n^3 without."""
    return (25.0 if vectors else 10.0) * n**3


def svd(m: int, n: int, vectors: bool) -> float:
    """Nominal: 14 m n^2 + 8 n^3 with thin factors, 4 m n^2 - 4/3 n^3 for the values alone (m >= n)."""
    m, n = max(m, n), min(m, n)
    return 14.0 * m * n * n + 8.0 * n**3 if vectors else 4.0 * m * n * n - 4.0 * n**3 / 3.0


def distances(rows: int, others: int, width: int) -> float:
    """Pairwise distances by direct difference: subtract, multiply (or absolute value, power) and add for every coordinate."""
    return 3.0 * rows * others * width
