"""FLOPs of the readers by formula: matmuls apart from attention scores, which cost the backward pass more.

Rows are counted over the whole batch, keys per sequence. A causal mask is not subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    matmul: float = 0.0
    scores: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.matmul + other.matmul, self.scores + other.scores)

    def __rmul__(self, times: float) -> Cost:
        return Cost(times * self.matmul, times * self.scores)

    @property
    def forward(self) -> float:
        return self.matmul + self.scores

    @property
    def training(self) -> float:
        """Forward and backward: twice the matmuls again; fused attention computes its scores anew, five products for two."""
        return 3.0 * self.matmul + 3.5 * self.scores


def block(rows: float, keys: float, d: int) -> Cost:
    """Self-attention and a feed-forward layer of width 4 d."""
    return Cost(24.0 * rows * d * d, 4.0 * rows * keys * d)


def cross(rows: float, keys: float, d: int) -> Cost:
    """Cross-attention to keys and values that are there."""
    return Cost(4.0 * rows * d * d, 4.0 * rows * keys * d)


def project(tokens: float, d: int) -> Cost:
    """Keys and values of one layer."""
    return Cost(4.0 * tokens * d * d)


def head(rows: float, d: int, vocabulary: int) -> Cost:
    return Cost(2.0 * rows * d * vocabulary)


def prefill(batch: float, tokens: int, past: int, d: int, layers: int) -> Cost:
    """Keys and values of `tokens` rows after `past` others, in every layer; the last layer computes nothing else for them."""
    return (layers - 1) * block(batch * tokens, past + tokens, d) + project(batch * tokens, d)


def extend(batch: float, tokens: int, past: int, d: int, layers: int, vocabulary: int) -> Cost:
    """Logits of `tokens` rows after `past` cached ones."""
    return layers * block(batch * tokens, past + tokens, d) + head(batch * tokens, d, vocabulary)


def break_even(offline: float, online: float, other_offline: float, other_online: float) -> list[float]:
    """Uses of a context from which (offline, online) is cheaper than the other pair; [] where it never is."""
    if online >= other_online:
        return []
    return [max(0.0, (offline - other_offline) / (other_online - online))]
