"""The recipe that every arm shares, and what is measured of a trained network. PyTorch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..shared.transformer import Transformer
from .task import VOCABULARY

BINS = 15  # of confidence, for the calibration error
RARELY = 0.1  # share of tokens below which a neuron counts as rarely active


def network(layer: Callable, given, run) -> Transformer:
    torch.manual_seed(run.seed)
    net = Transformer(
        VOCABULARY, given.d, given.layers, given.heads, given.length, causal=True, feed_forward=lambda _: layer(given)
    )
    return net.to(run.device)


def pairs(inputs: np.ndarray, targets: np.ndarray, given, rng: np.random.Generator):
    """A batch of windows, int64 [batch, length], and the byte after each place; -100 for the last."""
    start = rng.integers(0, len(inputs) - given.length + 1, given.batch)
    places = start[:, None] + np.arange(given.length)
    asked = targets[places[:, 1:]].astype(np.int64)
    return inputs[places].astype(np.int64), np.concatenate((asked, np.full((given.batch, 1), -100)), 1)


def loss(logits, targets) -> torch.Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def train(net, given, run, steps: int, learning_rate: float) -> Iterator[int]:
    """AdamW with warm-up and cosine decay; yields after each step. The batches depend on the seed only, not on the arm."""
    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=learning_rate, weight_decay=0.01)
    warm = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: min((t + 1) / warm, 0.55 + 0.45 * math.cos(math.pi * min(1.0, t / steps)))
    )
    rng = np.random.default_rng((run.seed, 1))
    for step in range(steps):
        inputs, targets = (run.put(part) for part in pairs(given.train, given.targets, given, rng))
        optimiser.zero_grad(set_to_none=True)
        loss(net(inputs), targets).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield step + 1


@contextlib.contextmanager
def inputs_of(net) -> Iterator[list]:
    """Collects what goes into the feed-forward layers, in the order of the calls: [n, d] each."""
    seen: list = []
    hooks = [block.feed_forward.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for block in net.blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def activity(net, seen: list) -> torch.Tensor:
    """How many tokens of a call each neuron was not zero for: [layers, width]."""
    return torch.stack([(block.feed_forward.hidden(x) != 0).sum(0) for block, x in zip(net.blocks, seen)]).double()


@torch.no_grad()
def measured(net, given, source: np.ndarray, run, *, seed: int, corrupted: float = 0.0) -> dict[str, np.ndarray]:
    """Metrics of the task, one value for each of `given.batches` batches or one for all. `corrupted`: share of random input bytes.

    The network answers as it is served: with the skipping kernel if it has one.
    """
    rng, random = np.random.default_rng((seed, 2)), np.random.default_rng((seed, 5))
    losses, shares, total, confidence, right = [], [], 0.0, [], []
    for _ in range(given.batches):
        ids, asked = pairs(source, source, given, rng)
        if corrupted:
            ids = np.where(random.random(ids.shape) < corrupted, random.integers(0, VOCABULARY, ids.shape), ids)
        inputs, targets = run.put(ids), run.put(asked)
        with inputs_of(net) as seen:
            logits = net(inputs)
        losses.append(float(loss(logits, targets)))
        active = activity(net, seen)
        total = total + active
        shares.append((active.mean(1) / given.tokens).cpu().numpy())
        best = torch.softmax(logits[:, :-1], -1).max(-1)
        confidence.append(best.values.flatten().cpu().numpy())
        right.append((best.indices == targets[:, :-1]).flatten().cpu().numpy())
    share, often = np.array(shares), (total / (given.tokens * given.batches)).cpu().numpy()
    found = {"perplexity": np.exp(losses), "nonzero": share.mean(1)}
    found |= {f"nonzero-{i + 1}": share[:, i] for i in range(given.layers)}
    found["calibration-error"] = np.array(calibration_error(np.concatenate(confidence), np.concatenate(right)))
    return found | {"never-active": np.array((often == 0).mean()), "rarely-active": np.array((often < RARELY).mean())}


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: |accuracy - confidence| of equal bins of confidence, weighted by their tokens."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right, BINS) - np.bincount(bins, confidence, BINS)
    return float(np.abs(gaps).sum() / len(confidence))


@torch.no_grad()
def counts(net, ids) -> dict[str, float]:
    """What the skipping layers did in a call, summed over layers: see `SkippingMLP.counts`."""
    with inputs_of(net) as seen:
        net(ids)
    found = [block.feed_forward.skipping.counts(x) for block, x in zip(net.blocks, seen)]
    return {name: sum(one[name] for one in found) for name in found[0]}
