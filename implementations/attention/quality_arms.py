"""The arms of attention-quality: each hands the attention of its own file to the same small transformer.

Settings are those of attention-forward for heads of 16 to 32 numbers. Random features stay as they were drawn, masks are not
learned. Treeformer, the effbench variant: exact attention for the first half of the steps, then trees fitted to this network, which
trains on; the paper trains the trees as well and grows them in two stages.
"""

from __future__ import annotations

from effbench import Bound, Claim, param

from .favor import FavorPlus
from .quality import TrainedAttention
from .sdpa import Sdpa
from .toeplitz import ToeplitzLinear
from .treeformer import TreeformerTc, TreeformerTf


class TrainedSdpa(TrainedAttention):
    name = "sdpa"

    def core(self):
        return Sdpa()


class TrainedFavorPlus(TrainedAttention):
    name = "favor+"
    claims = (
        Claim(
            "Estimates softmax attention, and trains as it does",
            "Choromanski et al., arXiv 2009.14794, abstract: provable accuracy; the trained networks are large",
            untestable="needs networks of the paper's scale; bits and answers of a small one are measured at equal steps",
        ),
    )

    features = param(64, sweep=[32, 64, 128])

    def core(self):
        return FavorPlus(features=self.features, chunk=64)


class TrainedTreeformerTf(TrainedAttention):
    name = "treeformer-tf"
    claims = (
        Claim(
            "Almost the accuracy of the Transformer (with 30 times fewer FLOPs in the attention layer). Asked here of the accuracy "
            "alone, as 98 % of exact attention's; the FLOPs of a layer are those of attention-forward",
            "Madaan et al., arXiv 2208.09015, abstract",
            parts=(Bound("quality.retrieval-accuracy", ">=", 0.98, over="sdpa", data="retrieval"),),
        ),
        Claim(
            "Up to 12 % more accurate than Linformer at similar FLOPs in the attention layer",
            "Madaan et al., arXiv 2208.09015, abstract",
            untestable="there is no Linformer among the arms: it has no causal form",
        ),
    )

    height = param(2, sweep=[1, 2, 3, 4])
    bootstrap = param(0.5, sweep=[0.25, 0.5, 0.75])

    def core(self):
        return TreeformerTf(height=self.height, block=32)


class TrainedTreeformerTc(TrainedAttention):
    name = "treeformer-tc"
    claims = (
        Claim(
            "Almost the accuracy of the Transformer (with 30 times fewer FLOPs in the attention layer)",
            "Madaan et al., arXiv 2208.09015, abstract",
            untestable="the paper trains the trees; here they are fitted, and TC-Attention then has no gradient for q and k",
        ),
    )

    height = param(3, sweep=[2, 3, 4])
    bootstrap = param(0.5, sweep=[0.25, 0.5, 0.75])

    def core(self):
        return TreeformerTc(height=self.height)


class TrainedToeplitzLinear(TrainedAttention):
    name = "toeplitz-linear"
    claims = (
        Claim(
            "Masks that keep linear attention fast, evaluated on trained networks",
            "Choromanski et al., arXiv 2107.07999, abstract: an empirical evaluation, without a number",
            untestable="the abstract promises no number, and the masks of this arm are fixed, not learned",
        ),
    )

    features = param(16, sweep=[16, 32])
    slope = param(0.01, sweep=[0.0, 0.01, 0.05])

    def core(self):
        return ToeplitzLinear(features=self.features, slope=self.slope)
