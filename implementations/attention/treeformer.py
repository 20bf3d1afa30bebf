"""Treeformer: a decision tree sends queries and keys to leaves, and a query only meets what the tree puts in its way.

Madaan et al., Treeformer: Dense Gradient Trees for Efficient Attention Computation, arXiv 2208.09015. TF-Attention: softmax over
the keys of the query's own leaf. TC-Attention: a convex mix of the mean values of the nodes on the query's path, no products.

effbench variant: the paper trains its trees with the network (dense gradients, bootstrapped from a dense model); a layer without
a network has nothing to train on, so trees are fitted to the calibration by median splits (`tree`), and TC's mix by its error
there. The bucketed computation is the real one: tokens sorted by leaf, products only of blocks whose leaves overlap, so work is
data-dependent and counted. A query whose leaf holds no key that it may see takes its own value. Left out: training the trees.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Claim, Flops, param

from . import buckets, tree
from .differentiable import DifferentiableAttention, backward
from .reference import exact_rows
from .task import free_host_memory


class TreeformerTf(DifferentiableAttention):
    name = "treeformer-tf"
    backend = "torch"
    claims = (
        Claim(
            "Almost the accuracy of the Transformer with 30 times fewer FLOPs in the attention layer",
            "Madaan et al., arXiv 2208.09015, abstract",
            untestable="needs trees trained with a pre-trained network; FLOPs, seconds and error of one layer are measured",
        ),
    )

    height = param(4, sweep=[0, 2, 4, 6])
    predicates = param("principal", sweep=["principal", "random"])
    block = param(64, sweep=[32, 64, 128])

    def build(self, given, run):
        if not 0 <= self.height <= 10:
            raise ValueError(f"height={self.height} must be 0 to 10")
        if self.block < 1:
            raise ValueError(f"block={self.block} must be at least 1")
        if self.predicates not in ("principal", "random"):
            raise ValueError(f"no predicates '{self.predicates}' (known: principal, random)")
        if self.height and not given.calibration:
            raise ValueError(f"a tree of height={self.height} is fitted to calibration data, and there is none")
        super().build(given, run)
        self.room = torch.cuda.mem_get_info()[0] if run.device == "cuda" else free_host_memory()
        with run.part("fit"):
            shape = (given.heads, 0, given.head_dim)
            weights, offsets = np.zeros(shape), np.zeros(shape[:2])
            if self.height:
                q, k, _ = given.calibration
                weights, offsets = tree.fit(q, k, self.height, run.rng, self.predicates)
        self.weights, self.offsets = (run.put(x.astype("float32")) for x in (weights, offsets))

    def leaves(self, x):
        wide = torch.promote_types(x.dtype, torch.float32)
        return tree.leaves(x.to(wide), self.weights, self.offsets)

    def compute(self, q, k, v):
        leaf_q, leaf_k = self.leaves(q), self.leaves(k)
        plan = buckets.plan(leaf_q, leaf_k, 2**self.height, self.block)
        pairs = len(plan.query_block)
        # Gathered blocks of q, k and v, and the scores with their exponentials.
        size = pairs * plan.block * (3 * q.shape[3] + 2 * plan.block) * max(4, q.element_size())
        self.require(size, f"the {pairs} pairs of blocks that share a leaf, of {q.shape[2]} tokens,")
        self.run.tally(pairs=pairs, useful=lambda: buckets.matches(leaf_q, leaf_k, 2**self.height))
        return buckets.attention(q, k, v, plan, self.causal)

    def flops(self, phase, case, tally):
        """executed: the predicates of queries and keys, and 4 d per score of every pair of blocks that was multiplied; useful: h
        predicates a token and the scores inside leaves (no mask); dense: n^2. Measured on the data: leaves are not balanced.
        Backward: 8 d more per score, and nothing for the predicates, which have no gradient."""
        if phase == "build":
            return None
        n, d, heads = case["length"], self.head_dim, self.batch * self.heads
        block = min(self.block, n)
        scores, same = tally.get("pairs", 0.0) * block * block, tally.get("useful", 0.0)
        per_score = 12.0 * d if backward(case) else 4.0 * d
        executed = 4.0 * heads * n * d * tree.predicates(self.height) + per_score * scores
        useful = 4.0 * heads * n * d * self.height + per_score * same
        other = (10.0 if backward(case) else 6.0) * scores
        return Flops(executed, useful=useful, dense=per_score * heads * n * n, other=other)


class TreeformerTc(TreeformerTf):
    name = "treeformer-tc"

    def build(self, given, run):
        super().build(given, run)
        mix = np.full((given.heads, self.height + 1), 1 / (self.height + 1))
        with run.part("fit"):
            if self.height:
                mix = self.mixture(given, run)
        self.mix = run.put(mix.astype("float32"))

    def mixture(self, given, run) -> np.ndarray:
        """Weights of the levels, [heads, h + 1], that bring the calibration's own output closest to exact attention."""
        q, k, v = given.calibration
        levels = run.numpy(buckets.path_means(*(self.leaves(run.put(x)) for x in (q, k)), run.put(v), self.height, self.causal))
        rows = np.arange(q.shape[2])
        found = []
        for head in range(given.heads):
            truth = np.stack([exact_rows(*(x[b, head] for x in (q, k, v)), rows, self.causal)[0] for b in range(len(q))])
            columns = np.stack([level[:, head].ravel() for level in levels], 1).astype(np.float64)
            found.append(convex(columns.T @ columns, columns.T @ truth.ravel()))
        return np.stack(found)

    def compute(self, q, k, v):
        size = 4 * v.numel() * max(4, v.element_size())
        self.require(size, f"the means along the paths of {q.shape[2]} tokens")
        leaf_q, leaf_k = self.leaves(q), self.leaves(k)
        if self.causal:
            means = buckets.path_means(leaf_q, leaf_k, v, self.height, True)
            return sum(self.mix[:, i, None, None] * x for i, x in enumerate(means)).to(v.dtype)
        # Without a mask all queries of a leaf get one answer: mixed once a leaf.
        table = sum(self.mix[:, i, None, None] * x for i, x in enumerate(buckets.node_means(leaf_k, v, self.height)))
        return table.gather(2, leaf_q[..., None].expand(v.shape)).to(v.dtype)

    def flops(self, phase, case, tally):
        """executed: the predicates (backward multiplies nothing: only v has a gradient); other: sums of values and the mix, one add and two operations a level and channel."""
        if phase == "build":
            return None
        n, d, heads, h = case["length"], self.head_dim, self.batch * self.heads, self.height
        executed = 4.0 * heads * n * d * tree.predicates(h)
        other = heads * (6.0 if backward(case) else 3.0) * n * d * (h + 1)
        dense = (12.0 if backward(case) else 4.0) * heads * n * n * d
        return Flops(executed, useful=4.0 * heads * n * d * h, dense=dense, other=other)


def convex(gram: np.ndarray, target: np.ndarray, steps: int = 500) -> np.ndarray:
    """w >= 0 with sum 1 that minimises w'Gw - 2 w't, by exponentiated gradient."""
    w = np.full(len(target), 1 / len(target))
    rate = 1.0 / max(np.abs(gram).max(), 1e-300)
    for _ in range(steps):
        gradient = gram @ w - target
        w = w * np.exp(-rate * (gradient - gradient.min()))
        w /= w.sum()
    return w
