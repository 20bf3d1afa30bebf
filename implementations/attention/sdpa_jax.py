"""JAX's own fused attention, jax.nn.dot_product_attention under jit.

Two implementations: "xla", which lets the compiler fuse plain attention and keeps the score matrix, and "cudnn", a flash
kernel (Dao et al., arXiv 2205.14135) for half precision on NVIDIA GPUs. "auto" is cudnn where that runs, else xla.
The library wants [batch, length, heads, head_dim]: both transpositions are inside the jitted call, since every method gets
the same inputs. XLA turns some of them into copies, and they count. Left out: masks other than causal, grouped heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from effbench import param

from .naive_jax import free_memory
from .task import Attention


class SdpaJax(Attention):
    name = "sdpa-jax"
    backend = "jax"
    deterministic = True
    exact = True

    implementation = param("auto", sweep=["auto", "xla", "cudnn"])

    def skip(self, given):
        if self.implementation not in ("auto", "xla", "cudnn"):
            raise ValueError(f"no implementation '{self.implementation}' (known: auto, xla, cudnn)")
        if self.implementation == "cudnn" and not fused(self.run):
            return f"cudnn attention needs float16 or bfloat16 on an NVIDIA GPU, not {self.run.dtype} on {self.run.device}"
        if self.run.device == "cpu" and self.run.dtype == "float16":
            return "JAX has no float16 attention on the CPU: its float16 matmul with float32 sums is missing there"
        return ""

    def build(self, given, run):
        super().build(given, run)
        self.chosen = self.implementation if self.implementation != "auto" else "cudnn" if fused(run) else "xla"
        self.room = free_memory(run.device)
        chosen, causal = self.chosen, self.causal

        def attention(q, k, v):
            q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
            with jax.default_matmul_precision("float32" if q.dtype == jnp.float32 else "default"):
                return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=chosen).swapaxes(1, 2)

        self._attention = jax.jit(attention)

    def compute(self, q, k, v):
        if self.chosen == "xla":
            n = q.shape[2]
            self.require(2 * q.shape[0] * q.shape[1] * n * n * 4, f"the score matrix of {n} tokens and its softmax, in float32,")
        return self._attention(q, k, v)

    def flops(self, phase, case, tally):
        """xla multiplies all n^2 entries out; a causal cudnn kernel skips blocks, counted as the useful n (n + 1) / 2."""
        if phase == "build":
            return self.softmax_flops(phase, case, 0)
        n = case["length"]
        skips = self.causal and self.chosen == "cudnn"
        return self.softmax_flops(phase, case, n * (n + 1) / 2 if skips else n * n)


def fused(run) -> bool:
    return run.device == "cuda" and run.dtype in ("float16", "bfloat16")
