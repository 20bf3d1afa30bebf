"""TPU-KNN as its authors ship it: `jax.lax.approx_max_k` over the scores.

Chern et al. (NeurIPS 2022), arXiv:2206.14286. On a TPU the selection is a reduction into bins, fused behind the product, with bins
chosen by XLA's lower bound on the recall. On a CPU and on a GPU the same call sorts: it is exact there, whatever the target, and its
time says nothing about the method; a record then carries a note. The base is scored in blocks, each told the size of the whole, and the
winners are rescored exactly. Left out: sharding, lower precision.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from effbench import Claim, Flops, knob

from .partial_reduce import bound, checked_target, dealt, expected_recall, xla_bins
from .task import K, VectorIndex

BLOCK = 1 << 18  # scores of 256 queries: 256 MB
MARGIN = 4
QUERIES = 256


@partial(jax.jit, static_argnames=("k", "l2", "target"))
def nearest(base, bias, mean, queries, *, k, l2, target):
    queries = queries - mean
    count = min(k + MARGIN, len(base))
    whole = len(base) if len(base) > BLOCK else -1
    values, rows = [], []
    for start in range(0, len(base), BLOCK):
        block = base[start : start + BLOCK]
        scores = jnp.matmul(queries, block.T, precision=lax.Precision.HIGHEST) - bias[start : start + BLOCK]
        value, column = lax.approx_max_k(scores, min(count, len(block)), recall_target=target, reduction_input_size_override=whole)
        values.append(value)
        rows.append(column + start)
    values, rows = jnp.concatenate(values, 1), jnp.concatenate(rows, 1)
    values, place = lax.top_k(values, count)
    rows = jnp.take_along_axis(rows, place, 1)
    if l2:
        values = -((base[rows] - queries[:, None]) ** 2).sum(-1)
    return jnp.take_along_axis(rows, lax.top_k(values, k)[1], 1)


class TpuKnnJax(VectorIndex):
    name = "tpu-knn-jax"
    version = 1
    backend = "jax"
    deterministic = True

    recall_target = knob(0.95)

    claims = (
        Claim(
            text="Reaches the peak performance of a TPU and outperforms search on GPUs at similar recall",
            source="Chern et al. (arXiv:2206.14286), abstract",
            untestable="the selection it is about exists on TPUs only; elsewhere jax sorts",
        ),
    )

    def skip(self, given):
        return "" if self.run.dtype == "float32" else f"searches in float32 only, not {self.run.dtype}"

    def index(self, base, given, run):
        mean = base.mean(0, dtype=np.float64).astype(np.float32) if self.metric == "l2" else np.zeros(self.d, np.float32)
        base = base - mean
        bias = 0.5 * np.einsum("nd,nd->n", base, base) if self.metric == "l2" else np.zeros(self.rows, np.float32)
        self._hold(base, bias, mean)

    def _hold(self, base, bias, mean):
        self.base, self.bias, self.mean = (self.run.put(array.astype(np.float32)) for array in (base, bias, mean))

    @property
    def notes(self):
        platform = next(iter(self.base.devices())).platform
        if platform != "tpu":
            return [
                f"approx_max_k sorts on a {platform}, being approximate on a TPU only: its time and recall say nothing of TPU-KNN"
            ]
        k = min(K + MARGIN, self.rows)
        bins = xla_bins(self.rows, k, self.recall_target)
        known = f"{expected_recall(dealt(self.rows, bins), k):.4f} expected for random places; at least {bound(bins, k):.4f} by XLA's bound"
        return [f"recall target {self.recall_target}: {bins} bins, {known}"]

    def squared_norm(self, queries):
        with jax.ensure_compile_time_eval():  # a number even while the call is traced to count its FLOPs
            return super().squared_norm(queries)

    def nearest(self, queries, k):
        checked_target(self.recall_target)
        self.run.tally(queries=len(queries))
        arguments = {"k": k, "l2": self.metric == "l2", "target": self.recall_target}
        parts = [queries[start : start + QUERIES] for start in range(0, len(queries), QUERIES)]
        found = [nearest(self.base, self.bias, self.mean, part, **arguments) for part in parts]
        return found[0] if len(found) == 1 else jnp.concatenate(found)

    def flops(self, phase, case, tally):
        if phase == "build":
            return Flops(0, other=4 * self.rows * self.d)
        product = 2 * tally["queries"] * self.rows * self.d
        other = tally["queries"] * (2 * self.rows + 3 * (K + MARGIN) * self.d)
        return Flops(product, useful=product, dense=product, other=other)

    def save(self, folder):
        np.savez(folder / "index.npz", **{name: np.asarray(getattr(self, name)) for name in ("base", "bias", "mean")})

    def load(self, folder, given):
        self.accept(given)
        with np.load(folder / "index.npz", allow_pickle=False) as file:
            self._hold(file["base"], file["bias"], file["mean"])
