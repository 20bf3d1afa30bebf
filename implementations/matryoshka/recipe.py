"""The recipe that every arm shares: batches, schedule, AdamW; and the heads that turn embeddings into class scores. PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from ..shared import cnn
from .sources import BATCH, Part

WEIGHT_DECAY = 1e-4


class Heads(nn.Module):
    """One linear classifier for each size, on the prefix of that length."""

    def __init__(self, sizes: tuple[int, ...], classes: int, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Linear(m, classes) for m in sizes)

    def forward(self, z) -> list[torch.Tensor]:
        return [layer(z[:, : layer.in_features]) for layer in self.layers]

    @property
    def weights(self) -> int:
        """Entries that one sample is multiplied with."""
        return sum(layer.weight.numel() for layer in self.layers)

    def arrays(self) -> dict[str, torch.Tensor]:
        found = {}
        for layer in self.layers:
            found[f"head-{layer.in_features}"], found[f"bias-{layer.in_features}"] = layer.weight.detach(), layer.bias.detach()
        return found


class TiedHeads(nn.Module):
    """One classifier [classes, d] and one bias; the head of a prefix is the classifier's first columns (MRL-E).

    The scores of a size are those of the size below plus the product of the columns between them: together one full product.
    """

    def __init__(self, sizes: tuple[int, ...], classes: int, seed: int):
        super().__init__()
        self.sizes = sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Linear(sizes[-1], classes)

    def forward(self, z) -> list[torch.Tensor]:
        found, scores, start = [], self.layer.bias, 0
        for m in self.sizes:
            scores = scores + z[:, start:m] @ self.layer.weight[:, start:m].T
            found.append(scores)
            start = m
        return found

    @property
    def weights(self) -> int:
        return self.layer.weight.numel()

    def arrays(self) -> dict[str, torch.Tensor]:
        return {"head": self.layer.weight.detach(), "bias": self.layer.bias.detach()}


def nested_loss(scores: list[torch.Tensor], labels) -> torch.Tensor:
    """The sum of the cross-entropies of all sizes, each with weight 1."""
    return torch.stack([F.cross_entropy(one, labels) for one in scores]).sum()


def optimise(
    modules: nn.ModuleList, loss: Callable, part: Part, *, steps: int, learning_rate: float, seed: int, run
) -> Iterator[float]:
    """`steps` steps of AdamW on loss(inputs, labels), batches by the seed alone; yields the loss, with the modules in eval mode."""
    if len(part) < BATCH:
        raise ValueError(f"{len(part)} training rows do not fill one batch of {BATCH}")
    inputs, labels = run.put(part.inputs), run.put(part.labels)
    optimiser = torch.optim.AdamW(modules.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
    draws, per_pass = torch.Generator().manual_seed(seed), len(part) // BATCH
    for step in range(steps):
        if step % per_pass == 0:
            order = torch.randperm(len(part), generator=draws).to(labels.device)
        chosen = order[(step % per_pass) * BATCH :][:BATCH]
        optimiser.param_groups[0]["lr"] = learning_rate * cnn.rate(step, steps)
        modules.train()
        optimiser.zero_grad(set_to_none=True)
        value = loss(inputs[chosen], labels[chosen])
        value.backward()
        optimiser.step()
        modules.eval()
        yield float(value.detach())
