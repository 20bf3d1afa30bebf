"""Masked linear attention with Toeplitz and block-Toeplitz masks by FFT: ((phi(Q) phi(K)^T) o M) V, rows normalised.

Choromanski et al., From Block-Toeplitz Matrices to Differential Equations on Graphs, arXiv 2107.07999. An entrywise mask costs as
many products of M with a vector as there are feature x value channels; M_ij = f(i - j) is a convolution, by FFT O(n log n). A
relative mask is a T5-like bias, f = exp(b); a causal one has f(t) = 0 for t < 0; on a grid f(dx, dy) is one 2-D FFT.

The features are FAVOR+'s (`features`), scaled per feature so that each convolution has its own range; FFTs run in float32 at
least. The loop is over groups of features that fit in memory. Left out: learned masks in this task (`masked` is differentiable
in f), graph kernels, and the vision variant's ReLU features with a class token.
"""

from __future__ import annotations

import math

import torch

from effbench import Claim, Flops, param

from . import features
from .differentiable import DifferentiableAttention, backward
from .task import free_host_memory

GROUP = {"cpu": 1 << 24, "cuda": 1 << 28}  # bytes that the spectra of one group of features may take: a cache, or few launches
CLAMP = 8  # units of rounding of the largest denominator of a head: what lies below is round-off of the FFT, and may be negative


class ToeplitzLinear(DifferentiableAttention):
    name = "toeplitz-linear"
    backend = "torch"
    claims = (
        Claim(
            "Masked linear attention in O(n log n) for Toeplitz masks, in any number of grid dimensions",
            "Choromanski et al., arXiv 2107.07999, abstract (scalable masks for relative positions in any dimension)",
            untestable="a bound is about one case, and this is about the growth over the lengths: see the scaling plot",
        ),
    )

    features = param(16, sweep=[16, 32, 64])
    slope = param(0.0, sweep=[0.0, 0.001, 0.01])
    columns = param(0, sweep=[0, 16])

    def build(self, given, run):
        if self.features < 1:
            raise ValueError(f"features={self.features} must be at least 1")
        if self.columns < 0 or self.slope < 0:
            raise ValueError(f"columns={self.columns} and slope={self.slope} must not be negative")
        if self.columns and given.causal:
            raise ValueError(f"columns={self.columns}: a causal mask needs one dimension, columns=0")
        super().build(given, run)
        drawn = features.draw(run.rng, self.heads, self.features, self.head_dim)
        self.w = run.put(drawn.astype("float32"))
        self.device = run.device
        self.room = torch.cuda.mem_get_info()[0] if run.device == "cuda" else free_host_memory()
        self._masks: dict = {}

    def grid(self, n: int) -> tuple[int, ...]:
        if self.columns and n % self.columns:
            raise NotImplementedError(f"{n} tokens do not fill rows of {self.columns} columns")
        return (n // self.columns, self.columns) if self.columns else (n,)

    def mask(self, n: int, dtype) -> torch.Tensor:
        """f as `masked` wants it: exp(-slope |t|), summed over the dimensions; 0 for t < 0 where causal. Kept: a parameter."""
        if (n, dtype) not in self._masks:
            distance = 0.0
            for axis, size in enumerate(shape := self.grid(n)):
                t = torch.arange(1 - size, size, device=self.device, dtype=dtype)
                distance = distance + t.abs().view([-1 if i == axis else 1 for i in range(len(shape))])
            f = torch.exp(-self.slope * distance)
            self._masks[n, dtype] = torch.where(torch.arange(1 - n, n, device=self.device) < 0, 0.0, f) if self.causal else f
        return self._masks[n, dtype]

    def compute(self, q, k, v):
        n, d = q.shape[2:]
        hq = features.exponents(q, self.w, 0.0, key=False)
        hk = features.exponents(k, self.w, 0.0, key=True)
        shape = self.grid(n)
        spectra = 2 * 2 ** len(shape) * n * (d + 1) * hq.element_size() * q.shape[0] * q.shape[1]
        # Autograd keeps products and spectra of all features, not of one group.
        count, what = (self.features, "all features") if self.training else (1, "one feature")
        self.require(3 * count * spectra, f"the spectra of {what} for {n} tokens")
        top = hk.detach().amax(-2, keepdim=True)
        weights = hq + top
        weights = torch.exp(weights - weights.detach().amax(-1, keepdim=True))
        group = max(1, min(self.features, GROUP[self.device] // spectra))
        return masked(weights, torch.exp(hk - top), v.to(hq.dtype), self.mask(n, hq.dtype), shape, group).to(v.dtype)

    def flops(self, phase, case, tally):
        """executed: the projections and the FFTs, forward and back, of M (d + 1) channels a head, and one of the mask; other: 6 per
        exponent, outer products, products of spectra, contraction. dense: the n^2 form with a mask that is at hand. Backward: the
        projections' other side, a real FFT and a complex one, twice the work (PyTorch's gradient of a real FFT), of every channel."""
        if phase == "build":
            return Flops(0.0)
        n, m, d, heads = case["length"], self.features, self.head_dim, self.batch * self.heads
        sizes = [fast_length(2 * size - 1) for size in self.grid(n)]
        channels = m * (d + 1)
        executed = heads * (4.0 * n * m * d + 2 * channels * transform(sizes)) + transform(sizes)
        points = math.prod(sizes[:-1]) * (sizes[-1] // 2 + 1)
        other = heads * (12.0 * n * m + 3.0 * n * channels + 6.0 * channels * points)
        dense = heads * (4.0 * n * m * d + 2.0 * n * n * (m + d + 1) + n * n)
        if backward(case):
            complex_transform = sum(5.0 * math.prod(sizes) * math.log2(size) for size in sizes)
            executed += heads * (4.0 * n * m * d + channels * (transform(sizes) + complex_transform))
            other, dense = 3 * other, dense + heads * (4.0 * n * m * d + 4.0 * n * n * (m + d + 1) + 2.0 * n * n)
        return Flops(executed, useful=executed, dense=dense, other=other)


def masked(phi_q, phi_k, v, f, shape: tuple[int, ...], group: int = 0) -> torch.Tensor:
    """(phi_q phi_k^T o M) v / (phi_q phi_k^T o M) 1 with M_ij = f(i - j), tokens in row-major order of the grid `shape`.

    phi_q and phi_k [.., n, m] must be >= 0, v [.., n, d]; f [2 s - 1 for s in shape] >= 0, index 0 is the most negative offset
    (i - j = 1 - s), or [.., 2 s - 1, ..] with leading dimensions that broadcast, as one mask a head. Differentiable.
    `group` features at a time, 0 for all.
    """
    m, d, rank = phi_k.shape[-1], v.shape[-1], len(shape)
    axes, sizes = tuple(range(-rank, 0)), [fast_length(2 * s - 1) for s in shape]
    spectrum = torch.fft.rfftn(circulant(f, shape, sizes), dim=axes)
    spectrum = spectrum.unsqueeze(-rank - 1).unsqueeze(-rank - 1) if f.dim() > rank else spectrum
    # Tokens last: transforms are then contiguous.
    values = torch.cat((v, torch.ones_like(v[..., :1])), -1).mT
    phi_q, phi_k = phi_q.mT, phi_k.mT
    total = 0.0
    for start in range(0, m, group or m):
        part = slice(start, start + (group or m))
        x = phi_k[..., part, None, :] * values[..., None, :, :]
        y = torch.fft.rfftn(x.unflatten(-1, shape), s=sizes, dim=axes) * spectrum
        y = torch.fft.irfftn(y, s=sizes, dim=axes)[(..., *(slice(0, s) for s in shape))].flatten(-rank)
        total = total + (phi_q[..., part, None, :] * y).sum(-3)
    sums = total[..., d:, :]
    floor = CLAMP * torch.finfo(sums.dtype).eps * sums.detach().amax(-1, keepdim=True)
    return (total[..., :d, :] / torch.maximum(sums, floor)).mT


def circulant(f: torch.Tensor, shape: tuple[int, ...], sizes: list[int]) -> torch.Tensor:
    """f over the offsets 1 - s .. s - 1 as the first column of a circulant of length `sizes`: offset t at t modulo the length."""
    for axis, (s, size) in enumerate(zip(shape, sizes), start=-len(shape)):
        gap = list(f.shape)
        gap[axis] = size - (2 * s - 1)
        negative, rest = f.narrow(axis, 0, s - 1), f.narrow(axis, s - 1, s)
        f = torch.cat((rest, f.new_zeros(gap), negative), axis)
    return f


def fast_length(least: int) -> int:
    """The smallest even number >= least with no prime factor above 5: FFTs of other lengths are slower, and odd real ones have no
    half spectrum of size / 2 + 1."""
    size = max(2, least + least % 2)
    while not smooth(size):
        size += 2
    return size


def smooth(size: int) -> bool:
    for prime in (2, 3, 5):
        while size % prime == 0:
            size //= prime
    return size == 1


def transform(sizes: list[int]) -> float:
    """FLOPs of one real FFT: 2.5 N log2 over the last dimension, 5 N log2 over the others on the half spectrum."""
    *others, last = sizes
    half = math.prod(others) * (last // 2 + 1)
    return 2.5 * math.prod(sizes) * math.log2(last) + sum(5.0 * half * math.log2(size) for size in others)
