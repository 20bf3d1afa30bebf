"""The networks of the encoder-decoder arms, and the recipe of all. PyTorch.

The same questions in the same order, loss on the asked tokens, AdamW with warm-up and cosine decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..shared.transformer import Transformer
from . import caches
from .corpus import UNASKED, VOCABULARY, Questions


def encoder_decoder(given, length: int) -> nn.ModuleDict:
    """Encoder of `length` positions and decoder with cross-attention, of one width and depth, with one table of tokens as in T5."""
    sizes = (VOCABULARY, given.d, given.layers, given.heads)
    encoder, decoder = Transformer(*sizes, length), Transformer(*sizes, given.n, causal=True, cross=True)
    encoder.head, encoder.tokens = None, decoder.tokens  # nothing is predicted from the encoder's side
    encoder.register_buffer("bias", caches.directions(given.heads, length), persistent=False)
    return nn.ModuleDict({"encoder": encoder, "decoder": caches.causal(decoder, given.heads)})


def initialised(net: nn.Module) -> nn.Module:
    """Tables of tokens on the scale of a layer's output: smaller ones drown in the mean over a context. Places a tenth of that."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1 if name.endswith("positions") else 1.0)
    return net


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
