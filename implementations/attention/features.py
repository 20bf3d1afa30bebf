"""Positive random features of the softmax kernel exp(x·y): how they are drawn, what they are, and their variance by formula.

phi_m(x) = D / sqrt(M) exp(A |w_m|^2 + B w_m·x - |x|^2 / 2) with B = sqrt(1 - 4A), D = (1 - 4A)^(d/4), A < 1/8 and w_m standard
normal; phi(x)·phi(y) is unbiased for exp(x·y), and x = q / d^(1/4), y = k / d^(1/4). A = 0 is FAVOR+ (Choromanski et al.,
arXiv 2009.14794); A = A* of Likhosherstov et al. (arXiv 2205.15317) is FAVOR++. The formulas of A and of the map follow the
authors' code (tensorflow/models, kernel_attention.py, `expplus`); those of the variance are derived.

Positive features turn linear attention into two softmaxes, which is how it is computed here: with h the exponents of phi,

    mean_m = sum_j softmax_j(h_jm) v_j        (every feature looks at the keys)
    out_i  = sum_m softmax_m(h_im + logsumexp_j h_jm) mean_m        (every query looks at the features)

is sum_j phi_i·phi_j v_j / sum_j phi_i·phi_j, exactly. Nothing overflows, no denominator vanishes, outputs stay in the hull of v.
"""

from __future__ import annotations

import math

import numpy as np
import torch


def draw(rng: np.random.Generator, heads: int, count: int, d: int, orthogonal: bool = True) -> np.ndarray:
    """w, float64 [heads, count, d]: standard normal rows; orthogonal within blocks of d rows, with lengths drawn anew."""
    if not orthogonal:
        return rng.standard_normal((heads, count, d))
    blocks = -(-count // d)
    directions, r = np.linalg.qr(rng.standard_normal((heads, blocks, d, d)))
    # LAPACK fixes the signs of Q (the first column always points to one side): without the signs of R it is not uniform, and
    # the estimate is biased, by 7 % of the kernel at d = 8, |x + y| = 1.
    directions = directions * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    rows = directions.swapaxes(-1, -2).reshape(heads, blocks * d, d)[:, :count]
    return rows * np.linalg.norm(rng.standard_normal((heads, count, d)), axis=-1, keepdims=True)


def optimal(square, d: int):
    """A*, which minimises the variance where the mean of |x + y|^2 is `square` (a number, an array or a tensor).

    The authors' form, (1 - 1 / rho) / 8 with rho = (sqrt((2 s + d)^2 + 8 d s) - 2 s - d) / (4 s), without its cancellation at
    small s: -u / (1 - 2u + sqrt((2u + 1)^2 + 8u)), u = s / d. Negative for every s > 0, 0 at s = 0.
    """
    u = square / d
    return -u / (1 - 2 * u + ((2 * u + 1) ** 2 + 8 * u) ** 0.5)


def square_of_sums(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Mean of |x_i + y_j|^2 over all pairs of a head, [batch, heads], from two sums over the tokens."""
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    squares = q.square().sum(-1).mean(-1) + k.square().sum(-1).mean(-1)
    return (squares + 2 * (q.mean(-2) * k.mean(-2)).sum(-1)) * q.shape[-1] ** -0.5


def exponents(x: torch.Tensor, w: torch.Tensor, a, *, key: bool) -> torch.Tensor:
    """h of q or k [batch, heads, n, d] for w [heads, M, d] and a number or [batch, heads] A: log phi without D / sqrt(M).

    In float32 at least. Of queries, -|x|^2 / 2 is left out: it is the same for all features of a query and cancels.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    x, w = x.to(wide), w.to(wide)
    norms = w.square().sum(-1)
    if torch.is_tensor(a):
        a = a.to(wide)[..., None]
        b, norms = torch.sqrt(1 - 4 * a)[..., None], (a * norms)[..., None, :]
    else:
        b, norms = math.sqrt(1 - 4 * a), (a * norms)[..., None, :]
    # The scale goes to the side that is smaller: M d numbers instead of n d.
    h = x @ (w * (b * x.shape[-1] ** -0.25)).mT + norms
    return h - x.square().sum(-1, keepdim=True) * (0.5 * x.shape[-1] ** -0.5) if key else h


def stabilised(x: torch.Tensor, w: torch.Tensor, a, eps: float, *, key: bool) -> torch.Tensor:
    """The authors' map with its eps: exp(h - B max(w·x)) + eps, whose factor D / sqrt(M) cancels in attention.

    The maximum is over the features of a query, and over keys and features of a head. It is that of B w·x alone, so eps
    weighs more the longer the vectors are; it biases, and it is why this form cannot divide by zero.
    """
    d = x.shape[-1]
    h = exponents(x, w, a, key=True)
    wide = w.to(h.dtype)
    b = torch.sqrt(1 - 4 * a.to(h.dtype))[..., None, None] if torch.is_tensor(a) else math.sqrt(1 - 4 * a)
    projected = b * d**-0.25 * (x.to(h.dtype) @ wide.mT)
    top = projected.amax((-1, -2) if key else -1, keepdim=True).detach()
    return torch.exp(h - top) + eps


def second_moment(z: float, x: float, y: float, a: float, d: int) -> float:
    """E[(phi_1(x) phi_1(y))^2] for one feature (M = 1) and |x + y|^2 = z, |x|^2 = x, |y|^2 = y."""
    return math.exp(log_second_moment(z, a, d) - x - y)


def log_second_moment(z: float, a: float, d: int) -> float:
    """Its logarithm without the factor exp(-|x|^2 - |y|^2), which does not depend on A."""
    if not a < 0.125:
        raise ValueError(f"A = {a} has no second moment: it must be below 1/8")
    return d * math.log(1 - 4 * a) - d / 2 * math.log(1 - 8 * a) + 2 * (1 - 4 * a) * z / (1 - 8 * a)
