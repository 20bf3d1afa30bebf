"""A ReLU layer in inference that reads only the rows of W2 whose neurons a token uses: C on the CPU, Triton on a GPU, else torch.

W2 is stored neuron by neuron, so that a neuron that is zero is a contiguous row that is never loaded. W1 is read whole: which neurons
are used is not known before. Where neither kernel can run, torch gathers the rows, which copies them; `reason` says why. On a GPU,
more than 16 tokens are multiplied densely.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn.functional import linear, relu

from ..shared.compiled import library
from . import skipping_kernels
from .skipping_source import SOURCE

INT, POINTER = ctypes.c_int64, ctypes.c_void_p
KERNELS = ("auto", "torch")


def kernel() -> tuple[ctypes.CDLL | None, str]:
    """The compiled library and "", or None and the reason why there is none."""
    found, reason = library("skipping", SOURCE)
    if found is not None and found.down.argtypes is None:
        found.select_used.argtypes, found.select_used.restype = (POINTER, INT, INT, INT, POINTER, POINTER, POINTER), INT
        found.down.argtypes, found.down.restype = (*(POINTER,) * 3, INT, INT, POINTER, POINTER, INT, INT, INT, POINTER, INT), None
    return found, reason


class SkippingMLP:
    """x [n, d] -> [n, d] = relu(x up^T + up_bias) rows + bias, of which only used rows are read, a token's k largest at most.

    up, rows [f, d] with a row for each neuron; `k` = 0 is no limit. `how` is "c", "triton" or "torch", which is the fallback.
    """

    def __init__(
        self, up, up_bias, rows, bias, *, k: int = 0, threads: int = 1, kernel_choice: str = "auto", level: int | None = None
    ):
        if kernel_choice not in KERNELS:
            raise ValueError(f"no kernel '{kernel_choice}' (known: {', '.join(KERNELS)})")
        self.width, self.d = up.shape
        if rows.shape != up.shape or up_bias.shape != (self.width,) or bias.shape != (self.d,):
            raise ValueError(
                f"rows {tuple(rows.shape)} and biases {tuple(up_bias.shape)}, {tuple(bias.shape)} do not fit up {tuple(up.shape)}: "
                "rows [f, d] as up, up_bias [f], bias [d]"
            )
        if not 0 <= k <= self.width:
            raise ValueError(f"k={k} must be 0 (no limit) to {self.width}, the number of neurons")
        self.up, self.up_bias, self.rows, self.bias = up, up_bias, rows.contiguous(), bias.contiguous()
        self.k, self.threads, self.how, self.reason = k or self.width, threads, "torch", "asked for"
        self.pool = None
        if kernel_choice == "torch":
            return
        if up.device.type == "cuda":
            self.reason = skipping_kernels.unfit(self.width, "cuda", str(up.dtype).removeprefix("torch."))
            if not self.reason:
                self.how, self.scratch = "triton", skipping_kernels.Scratch(up.device)
        elif up.dtype != torch.float32:
            self.reason = f"the C kernel is for float32, not {up.dtype}"
        else:
            self.library, self.reason = kernel()
            if self.library is not None:
                self.how, self.level = "c", self.library.best_level() if level is None else level
                self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __call__(self, x):
        if self.how == "triton" and not self.is_dense(x):
            return skipping_kernels.mlp(x, self.up, self.up_bias, self.rows, self.bias, self.k, self.scratch)
        h = linear(x, self.up, self.up_bias)
        if self.how == "triton":
            return torch.addmm(self.bias, top(h.relu_(), self.k), self.rows)
        return self.in_c(h) if self.how == "c" else self.in_torch(h)

    def is_dense(self, x) -> bool:
        """More tokens than the GPU's kernels take: nearly every neuron is used by one of them, and all are multiplied."""
        return self.how == "triton" and not 0 < len(x) <= skipping_kernels.MOST

    def in_c(self, h):
        n, h = len(h), h.contiguous()
        index, value = torch.empty((n, self.width), dtype=torch.int32), torch.empty_like(h)
        count, out = torch.empty(n, dtype=torch.int64), h.new_empty((n, self.d))
        at = [a.data_ptr() for a in (index, value, count)]
        if self.library.select_used(h.data_ptr(), n, self.width, self.k, *at):
            raise MemoryError("the kernel found no memory")
        fixed = (*at, n, self.width, self.rows.data_ptr(), self.bias.data_ptr(), self.d)
        if self.pool is None:
            self.library.down(*fixed, 0, self.d, out.data_ptr(), self.level)
        else:  # columns are shared out: every thread reads its part of every used row
            edges = [self.d * i // self.threads for i in range(self.threads + 1)]
            list(self.pool.map(lambda a, b: self.library.down(*fixed, a, b, out.data_ptr(), self.level), edges[:-1], edges[1:]))
        return out

    def in_torch(self, h):
        """Gathers the rows that any token of the call uses; zeros within them are multiplied."""
        a = top(relu(h), self.k)
        used = (a != 0).any(0).nonzero()[:, 0]
        return torch.addmm(self.bias, a[:, used], self.rows[used])

    @torch.no_grad()
    def used(self, x):
        """Which neurons each token uses, bool [n, f]: for counting, outside the clock."""
        return top(relu(linear(x, self.up, self.up_bias)), self.k) != 0

    def counts(self, x) -> dict[str, float]:
        """active: neurons used, summed over tokens; union: rows read, used by any token or all; rows: multiplied, zeros included.

        In C, zeros are not multiplied. Torch and the GPU's kernels read a row once for all tokens, and multiply it by all of them.
        """
        used = self.used(x)
        active, union = float(used.sum()), float(self.width if self.is_dense(x) else used.any(0).sum())
        return {"active": active, "union": union, "rows": active if self.how == "c" else len(x) * union}


def top(a, k: int):
    """The k largest of each row, the others zero. Gradients pass through what is kept only."""
    if k >= a.shape[-1]:
        return a
    values, index = a.topk(k, -1, sorted=False)
    return torch.zeros_like(a).scatter(-1, index, values)
