"""The recipe that every arm shares: the same questions in the same order, loss on the asked tokens, AdamW, warm-up, cosine. PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from .corpus import UNASKED, Questions


def train(method, given, run) -> Iterator[float]:
    """Yields the loss after each step. The questions depend on the seed only, not on the arm."""
    net, steps = method.net.train(), run.budget.steps
    optimiser = torch.optim.AdamW(net.parameters(), lr=method.learning_rate, weight_decay=0.01)
    warm = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: min((t + 1) / warm, 0.55 + 0.45 * math.cos(math.pi * min(1.0, t / steps)))
    )
    rng = np.random.default_rng((run.seed, 1))
    for _ in range(steps):
        asked = given.draw(rng, given.batch)
        logits = method.logits(run.put(asked.inputs), run.put(asked.documents))
        loss = cross_entropy(logits.flatten(0, 1), run.put(asked.targets).flatten(), ignore_index=UNASKED)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield float(loss.detach())


def answers(method, questions: Questions, batch: int = 32) -> np.ndarray:
    """Logits [count, n, vocabulary] of questions whose documents are read anew."""
    run = method.run
    parts = [questions.part(slice(i, i + batch)) for i in range(0, len(questions), batch)]
    return np.concatenate([run.numpy(method.read(run.put(part.inputs), run.put(part.documents))) for part in parts])
