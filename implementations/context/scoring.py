"""What logits are worth, and from how many uses of a context a cache pays. numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from effbench import Case

from . import costs
from .corpus import UNASKED, VOCABULARY, Given


def judged(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits for each asked token and share of them that is predicted, means of each question: two arrays [count]."""
    asked, which = targets != UNASKED, np.where(targets == UNASKED, 0, targets)[..., None]
    logits = logits.astype(np.float64)
    peak = logits.max(-1, keepdims=True)
    chance = (peak + np.log(np.exp(logits - peak).sum(-1, keepdims=True)) - np.take_along_axis(logits, which, -1))[..., 0]
    right, count = logits.argmax(-1) == which[..., 0], asked.sum(-1)
    return (chance * asked).sum(-1) / count / np.log(2), (right & asked).sum(-1) / count


def break_even(method, given: Given, case: Case) -> dict[str, Any]:
    """Uses of a context, against a coupled reader of the decoder's depth that reads anew each time or caches prefixes."""
    if case["cached"] == "nothing" or not (offline := method.offline(1).forward):
        return {}
    d, m, n, layers = given.d, given.context, given.n, given.layers
    kept = m if case["cached"] == "together" else given.length
    filled = costs.prefill(1, m, 0, d, layers).forward
    question = costs.extend(1, n, m, d, layers, VOCABULARY).forward
    online = method.online(1, case["cached"]).forward
    rest = costs.prefill(1, m - kept, kept, d, layers).forward
    return {
        "break-even": costs.break_even(offline, online, 0.0, filled + question),
        "break-even-prefix": costs.break_even(offline, online, filled, rest + question),
    }
