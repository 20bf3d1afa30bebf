"""Retrieval with a right answer: a usage example asks for the gloss of its own word sense, among all glosses.

A linear adaptor of frozen sentence embeddings is trained on (example, gloss) pairs by InfoNCE over the batch, summed over prefixes,
each scaled to unit length; the same for one length gives the networks of one size. Every adaptor starts as the PCA of the glosses.
Senses are split: no gloss that a test query asks for was seen in a training pair. PyTorch is imported inside.
"""

from __future__ import annotations

import numpy as np

import effbench
from effbench import Data

from .material import STEPS, Bench
from .sources import Encoder, Part, check

RATE = 0.001
TEMPERATURE = 0.05


def pairs(data: Data, size: str) -> tuple[np.ndarray, Part, Part]:
    """Glosses [rows, w]; training pairs, inputs [n, 2, w] of example and gloss; queries [q, w]. Labels are rows of the gallery."""
    arrays = effbench.dataset("glosses-384")
    rows = min(data.args["rows"], 2000) if size == "smoke" else data.args["rows"]
    check(data, rows, len(arrays["vectors"]))
    glosses = arrays["vectors"][:rows].astype(np.float32)
    inside = arrays["example_rows"] < rows
    asked, answer = arrays["example_vectors"][inside].astype(np.float32), arrays["example_rows"][inside]
    tested = np.random.default_rng(0).random(rows)[answer] < 0.25
    train = Part(np.stack((asked[~tested], glosses[answer[~tested]]), 1), answer[~tested].astype(np.int64))
    return glosses, train, Part(asked[tested], answer[tested].astype(np.int64))


def contrastive_loss(z_example, z_gloss, rows, sizes: tuple[int, ...]):
    """Sum over sizes of the cross-entropy of an example's own gloss among the batch's; other copies of it are no negatives."""
    import torch
    from torch.nn import functional as F

    target = torch.arange(len(rows), device=rows.device)
    same = (rows[:, None] == rows) & (target[:, None] != target)
    losses = []
    for m in sizes:
        scores = F.normalize(z_example[:, :m]) @ F.normalize(z_gloss[:, :m]).T / TEMPERATURE
        losses.append(F.cross_entropy(scores.masked_fill(same, -torch.inf), target))
    return torch.stack(losses).sum()


def adaptor(glosses: np.ndarray, train: Part, out: int, sizes: tuple[int, ...], steps: int, bench: Bench):
    """A linear layer w -> out, trained for the prefixes of these sizes."""
    import torch

    from .recipe import optimise
    from .tables import principal

    net = torch.nn.Linear(glosses.shape[1], out, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(principal(glosses)[1][:, :out].T.copy()))
    net = net.to(bench.device)

    def loss(x, rows):
        return contrastive_loss(net(x[:, 0]), net(x[:, 1]), rows, sizes)

    modules = torch.nn.ModuleList([net])
    for _ in optimise(modules, loss, train, steps=steps, learning_rate=RATE, seed=bench.seed, run=bench):
        pass
    return net.weight.detach().cpu().numpy().T


def made(data: Data, size: str, run) -> tuple[Encoder, dict[str, dict[str, np.ndarray]], np.ndarray]:
    """The shape of the full adaptor; "gallery" and "queries" -> family -> embeddings; the row that every query asks for."""
    glosses, train, test = pairs(data, size)
    spec = Encoder(glosses.shape[1], 0, data.args["d"], 0)
    bench, steps = Bench(run.device, run.seed), STEPS[size]
    separate = [adaptor(glosses, train, m, (m,), steps, bench) for m in spec.sizes]
    weights = {
        "mrl": adaptor(glosses, train, spec.d, spec.sizes, steps, bench),
        "plain": separate[-1],
        "separate": np.concatenate(separate, 1),
    }
    sets = {"gallery": glosses, "queries": test.inputs}
    return spec, {name: {family: x @ w for family, w in weights.items()} for name, x in sets.items()}, test.labels
