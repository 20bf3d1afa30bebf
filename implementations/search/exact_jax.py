"""Exact search in JAX: the algorithm of `exact`, compiled by XLA once for every shape of a batch.

Scores |x|^2/2 - <q,x> of centred vectors block by block, an exact selection through chunk minima and `lax.top_k`, distances of the
winners recomputed by differences. Blocks are unrolled rather than scanned, so that XLA's cost analysis counts each of them.
Left out: `lax.approx_max_k` (another method), sharding, lower precision.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effbench import Flops

from .task import K, VectorIndex

BLOCK = 65536
CHUNK = 32
MARGIN = 8  # as in `selection`, which cannot be shared: it is torch


def smallest(scores, count):
    """Values and columns of the `count` smallest entries of each row; see `selection.smallest`."""
    rows, columns = scores.shape
    chunks = columns // CHUNK
    if columns % CHUNK or chunks < 2 * count:
        value, column = lax.top_k(-scores, min(count, columns))
        return -value, column
    minima = scores.reshape(rows, CHUNK, chunks).min(1)
    chosen = lax.top_k(-minima, count)[1]
    candidates = (chosen[:, :, None] + jnp.arange(0, columns, chunks, dtype=chosen.dtype)).reshape(rows, -1)
    value, place = lax.top_k(-jnp.take_along_axis(scores, candidates, 1), count)
    return -value, jnp.take_along_axis(candidates, place, 1)


@partial(jax.jit, static_argnames=("k", "l2"))
def nearest(vectors, bias, mean, queries, *, k, l2):
    queries = queries - mean
    values, rows = [], []
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        scores = bias[start : start + BLOCK] - jnp.matmul(queries, block.T, precision=lax.Precision.HIGHEST)
        value, column = smallest(scores, k + MARGIN)
        values.append(value)
        rows.append(column + start)
    values, rows = jnp.concatenate(values, 1), jnp.concatenate(rows, 1)
    value, place = lax.top_k(-values, min(k + MARGIN, values.shape[1]))
    rows = jnp.take_along_axis(rows, place, 1)
    if l2:
        value = -jnp.where(jnp.isinf(value), jnp.inf, ((vectors[rows] - queries[:, None]) ** 2).sum(-1))
    return jnp.take_along_axis(rows, lax.top_k(value, k)[1], 1)


class ExactJax(VectorIndex):
    name = "exact-jax"
    version = 1
    backend = "jax"
    deterministic = True

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def index(self, base, given, run):
        mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        base = base - mean
        bias = 0.5 * np.einsum("nd,nd->n", base, base) if self.metric == "l2" else np.zeros(self.rows, np.float32)
        spare = -self.rows % CHUNK
        self._hold(np.pad(base, ((0, spare), (0, 0))), np.pad(bias, (0, spare), constant_values=np.inf), mean)

    def _hold(self, vectors, bias, mean):
        self.vectors, self.bias, self.mean = (self.run.put(array.astype(np.float32)) for array in (vectors, bias, mean))

    def squared_norm(self, queries):
        with jax.ensure_compile_time_eval():  # a number even while the call is traced to count its FLOPs
            return super().squared_norm(queries)

    def nearest(self, queries, k):
        self.run.tally(queries=len(queries), distances=len(queries) * self.rows)
        return nearest(self.vectors, self.bias, self.mean, queries, k=k, l2=self.metric == "l2")

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        queries, padded = tally["queries"], len(self.vectors)
        product = 2 * queries * self.rows * self.d
        other = queries * (2 * padded + 3 * (K + MARGIN) * self.d)
        return Flops(2 * queries * padded * self.d, useful=product, dense=product, other=other)

    def save(self, folder):
        np.savez(folder / "index.npz", **{name: np.asarray(getattr(self, name)) for name in ("vectors", "bias", "mean")})

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["vectors"], file["bias"], file["mean"])
