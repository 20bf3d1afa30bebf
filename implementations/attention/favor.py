"""FAVOR+ and FAVOR++: softmax attention by positive orthogonal random features, linear in the length.

exp(q·k / sqrt(d)) is replaced by phi(q)·phi(k) with M features, so that sum_j phi(k_j) v_j is formed once for all queries.
FAVOR+: Choromanski et al., Rethinking Attention with Performers, arXiv 2009.14794. FAVOR++: Likhosherstov et al., Chefs' Random
Tables, arXiv 2205.15317, whose optimal positive features (OPRF) add A |w|^2 to the exponent, A* from the data of each head.

In half precision on a GPU both run as Triton kernels (favor_kernels.py), elsewhere in PyTorch, always with exponents and sums
in float32. `eps` > 0 is the authors' map, which adds it to every feature (they use 1e-6); 0 is the unbiased one, computed as
two softmaxes. Left out: redrawing w in training, the trigonometric features, the general-kernel variants.
"""

from __future__ import annotations

import torch

from effbench import Claim, Flops, param

from . import favor_kernels, features, linear
from .differentiable import DifferentiableAttention, backward


class FavorPlus(DifferentiableAttention):
    name = "favor+"
    backend = "torch"
    claims = (
        Claim(
            "Linear in the length: faster than exact attention on long sequences, at its accuracy after training",
            "Choromanski et al., arXiv 2009.14794, abstract: linear space and time complexity; the accuracy needs trained networks",
            untestable="a bound cannot name the length it is about; the scaling plot of attention-forward shows the crossing",
        ),
    )

    features = param(128, sweep=[64, 128, 256, 512])
    orthogonal = param(True, sweep=[True, False])
    eps = param(0.0, sweep=[0.0, 1e-6])
    chunk = param(128, sweep=[64, 128, 256])
    kernel = param("auto", sweep=["auto", "torch", "triton"])
    compiled = param(False, sweep=[False, True])

    def skip(self, given):
        if self.kernel not in ("auto", "torch", "triton"):
            raise ValueError(f"no kernel '{self.kernel}' (known: auto, torch, triton)")
        if self.kernel == "triton":
            return self.not_for_triton(given.head_dim, self.run)
        return ""

    def build(self, given, run):
        if self.features < 1 or self.chunk < 1:
            raise ValueError(f"features={self.features} and chunk={self.chunk} must be at least 1")
        if self.eps < 0:
            raise ValueError(f"eps={self.eps} must not be negative: features would not be positive")
        super().build(given, run)
        dtype = getattr(torch, run.dtype)
        drawn = features.draw(run.rng, self.heads, self.features, self.head_dim, self.orthogonal)
        # Queries and keys must meet the same w: rounded once, to the dtype of the run, for every path.
        self.w = run.put(drawn.astype("float32")).to(dtype).contiguous()
        self.fused = self.kernel != "torch" and not self.not_for_triton(self.head_dim, run)
        self.room = favor_kernels.room(run.device)
        self.zeros = None
        self.whole = torch.compile(self.by_torch) if self.compiled else self.by_torch

    def not_for_triton(self, head_dim: int, run) -> str:
        """Why the Triton kernels cannot run here, or ""."""
        if self.eps:
            return "the Triton kernels have no eps: they cannot divide by zero"
        return favor_kernels.unfit(self.features, head_dim, run.device, run.dtype)

    def coefficient(self, q, k):
        """A: a number, or [batch, heads]."""
        return 0.0

    def compute(self, q, k, v):
        training = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        if self.fused and not training:
            return favor_kernels.attention(q, k, v, self.w, self.fused_coefficient(q, k), self.causal)
        size = 4 * max(4, q.element_size()) * q.shape[0] * q.shape[1] * q.shape[2] * self.features
        self.require(size, f"the features of {q.shape[2]} tokens")
        return self.whole(q, k, v)

    def fused_coefficient(self, q, k):
        """A for the kernels: float32 [batch * heads]. Kept between calls: making zeros is a launch of its own."""
        count = q.shape[0] * q.shape[1]
        if self.zeros is None or len(self.zeros) != count:
            self.zeros = torch.zeros(count, device=q.device)
        return self.zeros

    def by_torch(self, q, k, v):
        a = self.coefficient(q, k)
        if self.eps:
            hq = torch.log(features.stabilised(q, self.w, a, self.eps, key=False))
            hk = torch.log(features.stabilised(k, self.w, a, self.eps, key=True))
        else:
            hq = features.exponents(q, self.w, a, key=False)
            hk = features.exponents(k, self.w, a, key=True)
        out = linear.causal(hq, hk, v, self.chunk) if self.causal else linear.bidirectional(hq, hk, v)
        return out.to(v.dtype)

    def flops(self, phase, case, tally):
        """executed: four products of 2 n M d; causal has the normaliser as a column of v, whole chunks, and products inside
        them. other: 6 per exponent for two maps. dense: the n^2 form of exact attention; useful: as executed without chunks.
        Backward, which never is the Triton kernels': two products for each of the forward pass, one for those with w."""
        if phase == "build":
            return Flops(0.0)
        n, m, d, heads = case["length"], self.features, self.head_dim, self.batch * self.heads
        maps = (8.0 if self.eps else 4.0) * n * m * d  # the maximum that the authors subtract is of a projection of its own
        training = backward(case)
        if self.causal and self.fused and not training:
            # Key features and their sums are made twice: for the segments, and again inside them. The normaliser has 8 columns.
            sums = 8.0 * n * m * d + 32.0 * n * m + 2.0 * n * favor_kernels.TILES["causal"][0] * (m + d)
        elif self.causal:
            chunk = min(self.chunk, n)
            padded = -(-n // chunk) * chunk
            sums, inside = 4.0 * padded * m * (d + 1), 2.0 * padded * chunk * (m + d + 1)
            # With one chunk nobody reads the state: its sums have no gradient.
            sums = (3.0 if training and n > chunk else 1.5 if training else 1.0) * sums + (3.0 if training else 1.0) * inside
        else:
            sums = (12.0 if training else 4.0) * n * m * d
        if training:
            maps += 4.0 * n * m * d
        useful, dense = (20.0, 12.0) if training else (8.0, 4.0)
        other = heads * (24.0 if training else 12.0) * n * m
        return Flops(heads * (maps + sums), useful=heads * useful * n * m * d, dense=heads * dense * n * n * d, other=other)


class FavorPlusPlus(FavorPlus):
    """A* from the mean of |x + y|^2 of the head: of the call's own tokens, as the authors do, or of the calibration's."""

    name = "favor++"
    claims = (
        Claim(
            "Optimal positive features have a variance more than e^60 below that of FAVOR+ at d = 64, |x + y|^2 = 100",
            "Likhosherstov et al., arXiv 2205.15317, caption of figure 1, as copied on a third-party page; by formula 61.2 nats",
            untestable="a statement about the kernel's variance, not about a record: the tests confirm it by formula",
        ),
        Claim(
            "A new state of the art for low-rank text Transformers",
            "Likhosherstov et al., arXiv 2205.15317, abstract",
            untestable="needs pre-trained text Transformers; the error of one layer is measured instead",
        ),
    )

    statistics = param("auto", sweep=["auto", "call", "calibration"])

    def skip(self, given):
        if self.statistics not in ("auto", "call", "calibration"):
            raise ValueError(f"no statistics '{self.statistics}' (known: auto, call, calibration)")
        if self.statistics == "call" and given.causal:
            return "statistics of the call see future tokens; a causal head takes those of the calibration"
        return super().skip(given)

    def build(self, given, run):
        super().build(given, run)
        self.fixed = None
        if self.statistics == "calibration" or (self.statistics == "auto" and self.causal):
            if not given.calibration:
                raise ValueError("statistics='calibration' needs calibration data, and there is none")
            q, k, _ = (run.put(x) for x in given.calibration)
            # One A a head, whatever the batch of the call.
            self.fixed = features.optimal(features.square_of_sums(q, k).mean(0, keepdim=True), self.head_dim)

    def coefficient(self, q, k):
        if self.fixed is not None:
            return self.fixed
        return features.optimal(features.square_of_sums(q, k).detach(), self.head_dim)

    def fused_coefficient(self, q, k):
        if self.fixed is not None:
            return self.fixed.float().expand(q.shape[0], -1).reshape(-1).contiguous()
        return favor_kernels.optimal(q, k)
