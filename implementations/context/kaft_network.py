"""The reader, its pre-training and its fine-tuning: a small transformer in which every statement is one position. PyTorch.

A position's embedding is the sum of those of its three symbols (name, relation, answer). No positions: the order of statements
says nothing. The answer is read at the last one, which asks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..shared.transformer import Block, FeedForward, attention_flops, feed_forward_flops, store
from . import kaft_facts as facts


class Reader(nn.Module):
    """ids int64 [batch, positions, 3] -> logits [batch, answers]."""

    def __init__(self, symbols: int, answers: int, d: int, layers: int, heads: int):
        super().__init__()
        self.tokens = nn.Embedding(symbols, d)
        nn.init.normal_(self.tokens.weight, std=0.3)
        self.blocks = nn.ModuleList(Block(d, heads, FeedForward(d, 4 * d)) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, answers, bias=False)

    def forward(self, ids):
        if ids.ndim != 3 or ids.shape[-1] != 3 or ids.dtype != torch.int64:
            raise ValueError(f"prompts are int64 [batch, positions, 3], not {ids.dtype} {list(ids.shape)}")
        x = self.tokens(ids).sum(-2)
        for block in self.blocks:
            x = block(x, ids[..., 0], False)
        return self.head(self.norm(x[:, -1]))


def forward_flops(n: float, positions: int, answers: int, d: int, layers: int) -> float:
    """Matmul-like FLOPs of n prompts."""
    block = attention_flops(n * positions, positions, d) + feed_forward_flops(n * positions, d, 4 * d)
    return layers * block + 2.0 * n * d * answers


def step_flops(n: float, positions: int, answers: int, d: int, layers: int) -> float:
    """Three forward passes; the backward pass of fused attention computes the scores anew, which is half as much again."""
    return 3 * forward_flops(n, positions, answers, d, layers) + 0.5 * layers * 4.0 * n * positions * positions * d


def schedule(optimiser, steps: int):
    """Warm-up over a tenth, at most 100 steps, then a cosine down to a tenth."""
    warm = max(1, min(100, steps // 10))
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: min((t + 1) / warm, 0.55 + 0.45 * math.cos(math.pi * min(1.0, t / steps)))
    )


def train(net: Reader, batches, steps: int, rate: float, put):
    """AdamW with clipped gradients. Yields the loss of each of `steps` batches (ids, answers)."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01)
    rates = schedule(optimiser, steps)
    net.train()
    for _ in range(steps):
        ids, target = next(batches)
        loss = cross_entropy(net(put(ids)), put(target))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        rates.step()
        yield loss


@torch.no_grad()
def answers(net: Reader, ids: np.ndarray, put) -> np.ndarray:
    """The likeliest answer to each prompt, int64 [n]."""
    return np.concatenate([net(put(ids[i : i + 2048])).argmax(-1).cpu().numpy() for i in range(0, len(ids), 2048)])


def pretraining(world: facts.World, batch: int, statements: int, seed: int):
    """Half closed-book questions about every real entity, half reading about fictional ones."""
    rng = np.random.default_rng((seed, 10))
    name, relation = world.questions(None)
    while True:
        chosen = rng.integers(0, len(name), batch // 2)
        asked = name[chosen], relation[chosen]
        empty = facts.closed_book(world, *asked, statements)
        read, target = facts.reading(world, batch - batch // 2, statements, rng)
        yield np.concatenate((empty, read)), np.concatenate((world.truth(*asked), target))


def pretrain(world: facts.World, args: dict, steps: int, seed: int, run) -> dict[str, np.ndarray | float]:
    """The model before fine-tuning: its weights, and how well it knows the facts and reads (`closed_book`, `reading`).

    `before` int64 [names, relations]: its answer to every question about a real entity without a context, -1 elsewhere.
    """
    torch.manual_seed(seed)
    net = Reader(world.symbols, world.count, args["d"], args["layers"], args["heads"]).to(run.device)
    for _ in train(net, pretraining(world, args["batch"], args["statements"], seed), steps, 3e-3, run.put):
        pass
    net.eval()
    rng = np.random.default_rng((seed, 11))
    name, relation = world.questions(None)
    said = answers(net, facts.closed_book(world, name, relation, args["statements"]), run.put)
    before = np.full((len(world.names), world.relations), -1)
    before[name, relation] = said
    read, target = facts.reading(world, 2000, args["statements"], rng)
    return {
        **{f"net.{key}": value for key, value in store(net).items()},
        "before": before,
        "closed_book": float(np.mean(said == world.truth(name, relation))),
        "reading": float(np.mean(answers(net, read, run.put) == target)),
    }
