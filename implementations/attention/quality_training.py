"""The recipe that every arm shares: network, AdamW with warm-up and cosine decay, loss, what is measured. PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..shared import transformer
from .quality import examples
from .sdpa import Sdpa
from .task import Given as Layout


class SwappedAttention(transformer.Attention):
    """Self-attention whose products are left to `core`, see `DifferentiableAttention`. `seen` is a list while q, k, v are collected."""

    core = seen = None

    def forward(self, x, memory=None, mask=None, causal=False):
        parts = (self.query(x), *self.key_value(x).chunk(2, -1))
        q, k, v = (transformer.split(y, self.heads).contiguous() for y in parts)
        if self.seen is not None:
            self.seen.append((q, k, v))
        return self.out(self.core.attend(q, k, v).transpose(1, 2).flatten(2))


def network(given, run) -> transformer.Transformer:
    """The same first weights for every arm. In retrieval a token starts as the sum of a vector of its key and one of its value."""
    torch.manual_seed(run.seed)
    net = transformer.Transformer(given.vocabulary, given.d, given.layers, given.heads, given.length, causal=True)
    for block in net.blocks:
        swapped = SwappedAttention(given.d, given.heads)
        swapped.load_state_dict(block.attention.state_dict())
        block.attention = swapped
    if given.keys:
        keys, values = (torch.randn(n, given.d) * given.d**-0.5 for n in (given.keys, given.values + 1))
        net.tokens.weight.data = (keys[:, None] + values[None]).flatten(0, 1)
    return net.to(run.device)


def install(net, given, run, make) -> None:
    """Build a core for every layer, each on q, k, v that this network has for training data."""
    calibration = [()] * given.layers
    if net.blocks[0].attention.core is not None:
        for block in net.blocks:
            block.attention.seen = []
        with torch.no_grad():
            net(run.put(examples(given.train, given, given.batch, np.random.default_rng((run.seed, 6)))[0]))
        calibration = [tuple(run.numpy(x) for x in block.attention.seen[0]) for block in net.blocks]
    for block, arrays in zip(net.blocks, calibration):
        core = make()
        core.run = run
        core.build(Layout(given.heads, given.d // given.heads, given.batch, True, arrays), run)
        block.attention.core, block.attention.seen = core, None


def loss(logits, targets) -> torch.Tensor:
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def train(method, given, run) -> Iterator[float]:
    """Yields the loss after each step. The batches depend on the seed only, not on the arm."""
    net, steps = method.net.train(), run.budget.steps
    install(net, given, run, Sdpa)
    switch = int(method.bootstrap * steps)
    optimiser = torch.optim.AdamW(net.parameters(), lr=method.learning_rate, weight_decay=0.01)
    warm = max(1, min(100, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: min((t + 1) / warm, 0.55 + 0.45 * math.cos(math.pi * min(1.0, t / steps)))
    )
    rng = np.random.default_rng((run.seed, 1))
    for step in range(steps):
        if step == switch:
            with run.part("cores"):
                install(net, given, run, method.core)
        ids, targets = (run.put(x) for x in examples(given.train, given, given.batch, rng))
        value = loss(net(ids), targets)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield float(value.detach())


@torch.no_grad()
def measured(net, given, source: np.ndarray, run, *, stream: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Bits per asked token, and for retrieval the share of right answers, for each of `given.batches` batches."""
    rng, bits, right = np.random.default_rng(stream), [], []
    for _ in range(given.batches):
        ids, targets = (run.put(x) for x in examples(source, given, given.batch, rng))
        logits = net(ids)
        bits.append(float(loss(logits, targets)) / math.log(2))
        asked = targets >= 0
        right.append(float((logits.argmax(-1) == targets)[asked].float().mean()))
    return {"bits": np.array(bits), **({"retrieval-accuracy": np.array(right)} if given.keys else {})}
