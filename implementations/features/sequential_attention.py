"""Sequential Attention: greedy selection inside one training run, with a softmax over the open features as the marginal gain.

The input is x o m, m = 1 for picked features and the softmax of trainable scores w over the others. At the end of each round the
feature of the largest w is picked and all w start anew, while the network trains on; so a feature that repeats a picked one loses.

Source: Yasuda, Bateni, Chen, Fahrbach, Fu and Mirrokni, Sequential Attention for Feature Selection, arXiv 2209.14881, after the
authors' module. Different: the official module picks at the first step of a round, when the first w has no gradient yet, so that
its first pick is random (our reading; pick="round-start"), and its count of rounds is right for one feature a round only.
variant="restart" trains a new network for every round, k trainings in all: the scheme without the saving. Left out: masks other
than softmax. w has a rate of its own (its mask starts at 1 / d), and Adam forgets its moments with it.
"""

from __future__ import annotations

import numpy as np
import torch

from effbench import Bound, Claim, Log, param

from .rounds import Rounds

SPREAD = 1e-5  # of w at the start of a round, as in the authors' module


def attention_mask(scores: torch.Tensor, open_: torch.Tensor) -> torch.Tensor:
    """1 where not open, the softmax over the open ones elsewhere: [d]."""
    # The finite floor keeps the softmax and its gradient defined when nothing is open any more.
    weights = torch.softmax(scores.masked_fill(~open_, torch.finfo(scores.dtype).min), 0)
    return torch.where(open_, weights, 1.0)


class Attentive(Rounds):
    """The trainable scores and their mask."""

    score_rate = param(0.03, tune=Log(0.003, 0.3))  # Adam's, of w

    def begin(self, features, run):
        self.rng, self.put = np.random.default_rng((run.seed, 6)), run.put
        self.w = self.put(self.fresh(features)).requires_grad_()
        return [{"params": [self.w], "lr": self.score_rate}]

    def fresh(self, features: int) -> np.ndarray:
        return (SPREAD * self.rng.standard_normal(features)).astype(np.float32)

    def renew(self, optimiser):
        self.w.copy_(self.put(self.fresh(len(self.w))))
        optimiser.state.pop(self.w, None)

    def mask(self, open_):
        return attention_mask(self.w, open_)

    def scores(self, net):
        return self.w.detach()


class SequentialAttention(Attentive):
    name = "sequential-attention"
    version = 1
    backend = "torch"
    variant = param("one-pass", sweep=("one-pass", "restart"))
    pick_at = param("round-end", sweep=("round-end", "round-start"))
    claims = (
        Claim(
            "State-of-the-art selection for neural networks. The abstract gives no number; asked is what the words say: no worse than "
            "any other selector at equal k. Better than a filter and than chance alone is partly.",
            "Yasuda et al., arXiv 2209.14881, abstract (no number)",
            parts=(
                Bound("quality.accuracy", ">=", 1.0, over="one-shot-mask"),
                Bound("quality.accuracy", ">=", 1.0, over="lasso"),
                Bound("quality.accuracy", ">=", 1.0, over="omp"),
                Bound("quality.accuracy", ">=", 1.0, over="sequential-lasso"),
                Bound("quality.accuracy", ">=", 1.0, over="mutual-information"),
                Bound("quality.accuracy", ">=", 1.0, over="gradient-boosting"),
                Bound("quality.accuracy", ">=", 1.0, over="random-features"),
            ),
            partly=(4, 6),
            size="quick",
        ),
        Claim(
            "One pass instead of a training for every feature: selection and final training together take at most twice the FLOPs of "
            "one training with all features. The factor is ours, the source says one pass.",
            "Yasuda et al., arXiv 2209.14881, abstract (one-pass greedy selection)",
            parts=(Bound("build.flops", "<=", 2.0, over="all-features"),),
            size="quick",
        ),
        Claim(
            "The same in seconds, at the same factor, ours: at most twice the time of one training with all features.",
            "Yasuda et al., arXiv 2209.14881, abstract (one-pass greedy selection)",
            parts=(Bound("build.time", "<=", 2.0, over="all-features"),),
            size="quick",
        ),
        Claim(
            "Equivalent to orthogonal matching pursuit on a linear problem",
            "Yasuda et al., arXiv 2209.14881, abstract",
            untestable="a theorem about a linear model with a penalty; a test compares the order of `sequential-attention-linear` with OMP's",
        ),
    )

    def select(self, given, run):
        for name, value, known in (
            ("variant", self.variant, ("one-pass", "restart")),
            ("pick_at", self.pick_at, ("round-end", "round-start")),
        ):
            if value not in known:
                raise ValueError(f"no {name} '{value}' (known: {', '.join(known)})")
        self.restart, self.early = self.variant == "restart", self.pick_at == "round-start"
        if self.early and (self.restart or self.features_per_round != 1):
            raise ValueError("pick_at='round-start' is the official module's order: one pass, and features_per_round=1")
        return super().select(given, run)
