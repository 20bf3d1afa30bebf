"""The recipe that every arm shares: network, batches, loss, AdamW with warm-up and cosine decay. PyTorch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..shared import text
from ..shared.transformer import FeedForward, Transformer
from .task import MASK, SHARE, VOCABULARY


def network(method, given, run) -> Transformer:
    """The method's layer stands in the last block; the other blocks have dense ones of width 2 f."""
    torch.manual_seed(run.seed)

    def make(layer: int):
        return method.layer(given) if layer == given.layers - 1 else FeedForward(given.d, 2 * given.width)

    return Transformer(VOCABULARY, given.d, given.layers, given.heads, given.length, causal=given.causal, feed_forward=make).to(
        run.device
    )


def hide(ids: np.ndarray, given, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, targets), targets -100 where nothing is asked: masked bytes, or the next byte of every place but the last."""
    if given.causal:
        return ids, np.concatenate((ids[:, 1:], np.full((len(ids), 1), -100)), 1)
    asked = rng.random(ids.shape) < SHARE
    asked[:, 0] |= ~asked.any(1)  # every window asks for something
    return np.where(asked, MASK, ids), np.where(asked, ids, -100)


def batch(source: np.ndarray, given, rng, run) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = hide(text.windows(source, given.batch, given.length, rng), given, rng)
    return run.put(inputs), run.put(targets)


def served(x: torch.Tensor, run) -> torch.Tensor:
    """In the number format that the network is served in: what stands before the layer gives it that."""
    return x.to(getattr(torch, run.dtype))


def loss(net, inputs, targets) -> torch.Tensor:
    return cross_entropy(net(inputs).flatten(0, 1).float(), targets.flatten(), ignore_index=-100)


class Progress:
    """How much of the budget is spent, in steps or in seconds of training, evaluations not counted."""

    def __init__(self, budget):
        self.steps, self.time, self.done, self.spent = budget.steps, budget.time, 0, 0.0
        self.resume()

    def resume(self) -> None:
        self.since = time.perf_counter()

    def tick(self) -> None:
        """After a step; the device has been waited for."""
        self.done, self.spent = self.done + 1, self.spent + time.perf_counter() - self.since

    def share(self) -> float:
        return min(1.0, self.done / self.steps if self.steps else self.spent / self.time)

    def over(self) -> bool:
        return self.share() >= 1

    def rate(self) -> float:
        """Factor of the learning rate: warm-up over a tenth of the budget, at most 100 steps, then cosine decay to a tenth."""
        share, decay = self.share(), 0.55 + 0.45 * math.cos(math.pi * self.share())
        if self.steps:
            return min((self.done + 1) / max(1, min(100, self.steps // 10)), decay)
        # The first steps are slow (kernels load, buffers grow), so 100 of them may be less than a tenth of the seconds.
        return min(max((self.done + 1) / 100, share / 0.1), decay)


def train(method, given, run) -> Iterator[float]:
    """Yields the loss after each step. The batches depend on the seed only, not on the arm."""
    net, clock = method.net.train(), Progress(run.budget)
    optimiser = torch.optim.AdamW(net.parameters(), lr=method.learning_rate, weight_decay=0.01)
    rng = np.random.default_rng((run.seed, 1))
    while not clock.over():
        for group in optimiser.param_groups:
            group["lr"] = method.learning_rate * clock.rate()
        value = loss(net, *batch(given.train, given, rng, run))
        total = value + sum(getattr(block.feed_forward, "auxiliary", 0.0) for block in net.blocks)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        found = float(value.detach())
        clock.tick()
        yield found
        clock.resume()


@torch.no_grad()
def bits(method, given, source: np.ndarray, seed: int) -> list[dict[str, float]]:
    """Bits per asked byte and the layer's shares, for each of `given.batches` batches of a source."""
    rng, found = np.random.default_rng((seed, 2)), []
    for _ in range(given.batches):
        value = float(loss(method.net, *batch(source, given, rng, method.run))) / math.log(2)
        shares = getattr(method.net.blocks[-1].feed_forward, "shares", dict)()
        found.append({"bits-per-byte": value, **{name: float(share) for name, share in shares.items()}})
    return found
