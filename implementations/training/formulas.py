"""Matmul FLOPs of one training step of a chain of dense layers. One add or one multiply is one FLOP.

A product of (B, i) by (i, o) is 2 B i o. P is the number of weights in matrices, P_1 those of the first layer, whose input
gradient nobody needs. Biases, transfer functions and the optimiser's own elementwise work are not in here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def matrix_parameters(sizes: Sequence[int]) -> int:
    return sum(a * b for a, b in itertools.pairwise(sizes))


def back_propagation_flops(sizes: Sequence[int], batch: int) -> float:
    """Forward, input gradients (not of the first layer), weight gradients: 2 B (3 P - P_1)."""
    return 2.0 * batch * (3 * matrix_parameters(sizes) - sizes[0] * sizes[1])


def local_steps_flops(sizes: Sequence[int], batch: int, inner: int) -> float:
    """Forward, input gradients, and `inner` local steps, the first of which reuses the forward pass: 2 B ((2 K + 1) P - P_1)."""
    return 2.0 * batch * ((2 * inner + 1) * matrix_parameters(sizes) - sizes[0] * sizes[1])
