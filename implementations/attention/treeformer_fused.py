"""Treeformer whose leaves are searched by Triton kernels (leaf_kernels.py): the trees and the answers are those of treeformer.py.

For half precision on a GPU. TF-Attention: what is multiplied are whole tiles of a flash attention over the stretch of sorted keys that
the leaves of a block of sorted queries span; no score reaches memory and nothing goes back to the host. TC-Attention without a mask: one
pass sums the values of each leaf, one hands every query its row; with a mask, and for gradients, it is PyTorch's (buckets.py).

Shown right by Triton's interpreter (tests/techniques/test_leaf_kernels.py); no GPU has run it yet.
"""

from __future__ import annotations

import torch

from . import buckets, leaf_kernels
from .treeformer import TreeformerTc, TreeformerTf


def training(q, k, v) -> bool:
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


class Fused:
    """Before a Treeformer among the bases: where the kernels run, and the predicates as they want them."""

    def skip(self, given):
        return leaf_kernels.unfit(self.height, given.head_dim, self.run.device, self.run.dtype)

    def build(self, given, run):
        super().build(given, run)
        self.predicates_of = (*leaf_kernels.padded(self.weights, self.offsets), self.height)


class TreeformerTfFused(Fused, TreeformerTf):
    name = "treeformer-tf-fused"
    claims = ()

    def compute(self, q, k, v):
        if training(q, k, v):
            return super().compute(q, k, v)
        # The formula counts pairs of blocks of `block` tokens: here as many of them as the tiles hold scores.
        area = min(self.block, q.shape[2]) ** 2
        self.run.tally(
            pairs=lambda: leaf_kernels.scores(q, k, *self.predicates_of, self.causal) / area,
            useful=lambda: buckets.matches(self.leaves(q), self.leaves(k), 2**self.height),
        )
        return leaf_kernels.attention(q, k, v, *self.predicates_of, self.causal)


class TreeformerTcFused(Fused, TreeformerTc):
    name = "treeformer-tc-fused"

    def compute(self, q, k, v):
        if self.causal or training(q, k, v):
            return super().compute(q, k, v)
        total, number = leaf_kernels.leaf_sums(k, v, *self.predicates_of)
        return leaf_kernels.rows_of(q, self.table(total, number).to(v.dtype), *self.predicates_of)

    def table(self, total, number):
        """The mix of the means along the path of each leaf, float32 [batch, heads, 2^h, d]; a node without keys takes its parent's."""
        found, mean = 0.0, None
        for level in range(self.height + 1):
            below = 2 ** (self.height - level)
            here, many = (x.unflatten(2, (-1, below)).sum(3).repeat_interleave(below, 2) for x in (total, number))
            own = here / many.clamp_min(1)
            mean = own if mean is None else torch.where(many > 0, own, mean)
            found = found + self.mix[:, level, None, None] * mean
        return found
