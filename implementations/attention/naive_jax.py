"""Softmax attention written down as it is defined, in JAX under jit: the whole score matrix, its softmax, times the values.

Vaswani et al., arXiv 1706.03762, equation (1). XLA may fuse scale, mask and softmax, and keeps the score matrix. It compiles
once per length, in the first call of a case. float32 multiplies in float32: JAX's default on a GPU is TF32, which is another
precision than the other arms'. Left out: dropout, padding masks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .task import Attention, free_host_memory


class NaiveJax(Attention):
    name = "naive-jax"
    backend = "jax"
    deterministic = True
    exact = True

    def build(self, given, run):
        super().build(given, run)
        self.room = free_memory(run.device)
        causal = self.causal

        def attention(q, k, v):
            with jax.default_matmul_precision("float32" if q.dtype == jnp.float32 else "default"):
                scores = (q * q.shape[-1] ** -0.5) @ k.mT
                if causal:
                    n = q.shape[-2]
                    scores = jnp.where(jnp.arange(n)[None, :] > jnp.arange(n)[:, None], -jnp.inf, scores)
                return jax.nn.softmax(scores, axis=-1) @ v

        self._attention = jax.jit(attention)

    def compute(self, q, k, v):
        n = q.shape[2]
        self.require(2 * q.shape[0] * q.shape[1] * n * n * q.dtype.itemsize, f"the score matrix of {n} tokens and its softmax")
        return self._attention(q, k, v)

    def flops(self, phase, case, tally):
        return self.softmax_flops(phase, case, case["length"] ** 2 if case else 0)


def free_memory(device: str) -> float:
    """Bytes that JAX can still take: from its allocator on a GPU, the main memory on a CPU."""
    stats = None if device == "cpu" else jax.devices()[0].memory_stats()
    return float(stats["bytes_limit"] - stats["bytes_in_use"]) if stats else free_host_memory()
