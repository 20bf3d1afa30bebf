"""PyTorch's scaled_dot_product_attention: fused, exact attention, and the arm that a faster attention has to beat.

Its kernels are FlashAttention (Dao et al., arXiv 2205.14135; on the CPU a blocked kernel of PyTorch's own), memory-efficient
attention (Rabe and Staats, arXiv 2112.05682) and plain "math". Left out: dropout, masks other than causal, cuDNN by name.

"auto" lets PyTorch choose. A kernel that is named is forced by `sdpa_kernel`, a context that costs some tens of microseconds
of Python in every call: compare kernels at lengths where that is small, and use "auto" for the arm.
"""

from __future__ import annotations

import warnings

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from effbench import Flops, param

from .differentiable import DifferentiableAttention
from .task import free_host_memory, visited

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
PROBE = 16  # tokens


class Sdpa(DifferentiableAttention):
    name = "sdpa"
    backend = "torch"
    deterministic = True
    exact = True

    kernel = param("auto", sweep=["auto", "flash", "efficient", "math"])

    def skip(self, given):
        if self.kernel not in ("auto", *KERNELS):
            raise ValueError(f"no kernel '{self.kernel}' (known: auto, {', '.join(KERNELS)})")
        if self.kernel == "auto" or runs(self.kernel, given, self.run):
            return ""
        where = f"{self.run.device}, {self.run.dtype}, heads of {given.head_dim}"
        return f"PyTorch {torch.__version__} has no {self.kernel} kernel for {where}"

    def build(self, given, run):
        super().build(given, run)
        self.device = run.device
        # Only for the FLOPs: PyTorch takes a fused kernel where one runs (cuDNN's among them), and those skip blocks alike.
        order = KERNELS if self.kernel == "auto" else (self.kernel,)
        self.chosen = next((name for name in order if runs(name, given, run)), "math")
        self.room = torch.cuda.mem_get_info()[0] if run.device == "cuda" else free_host_memory()

    def compute(self, q, k, v):
        if self.chosen == "math":
            n = q.shape[2]
            self.require(2 * q.shape[0] * q.shape[1] * n * n * q.element_size(), f"the score matrix of {n} tokens and its softmax")
        if self.kernel == "auto":
            return scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        with sdpa_kernel(KERNELS[self.kernel]):
            return scaled_dot_product_attention(q, k, v, is_causal=self.causal)

    def flops(self, phase, case, tally):
        """Executed work of a causal head: the key blocks that the kernel visits, see `visited`; without a mask, n^2.

        `FlopCounterMode` counts n^2 for a causal head as well, whatever the kernel skips, and nothing for the CPU's kernel
        unless that is registered. So a causal formula is smaller than the counter, down to half. The build is the short call
        that finds the kernel.
        """
        if phase == "build":
            return Flops(4.0 * self.heads * PROBE**2 * self.head_dim)
        n = case["length"]
        skips = self.causal and self.chosen != "math"
        entries = visited(n, *blocks(n, self.device)) if skips else n * n
        return self.softmax_flops(phase, case, entries, again=self.chosen != "math")


def runs(kernel: str, given, run) -> bool:
    """Whether a kernel takes this head layout, tried on one short call: PyTorch has no list of it for every device."""
    probe = torch.zeros(1, given.heads, PROBE, given.head_dim, device=run.device, dtype=getattr(torch, run.dtype))
    with warnings.catch_warnings(), sdpa_kernel(KERNELS[kernel]), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            scaled_dot_product_attention(probe, probe, probe, is_causal=given.causal)
        except RuntimeError:
            return False
    return True


def blocks(n: int, device: str) -> tuple[int, int]:
    """(queries, keys) in a block. CPU: from the source of PyTorch's kernel. CUDA: 128 x 128, FlashAttention-2's choice for
    heads of 64; other heads and other kernels take other blocks, which moves a causal count by about 128 / n."""
    if device != "cpu":
        return 128, 128
    return (256 if n >= 768 else 64 if n >= 192 else 32), 512
