"""The layer of a network that was trained here, and what goes into it: prepared material of `inference.py`. PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..shared import text
from . import training
from .inference import STEPS, TOKENS
from .mlp import Mlp
from .task import BYTES, Given

LEARNING_RATE = 0.002


def layer(data, size: str, seed: int, run) -> dict[str, Any]:
    """Weights of block `layer` (from 1) after STEPS steps, and its inputs at validation and test text: float32 arrays."""
    args = dict(data.args)
    number, k = args.pop("layer"), args.pop("k")
    wrong = [name for name, value in args.items() if value < 1]
    if wrong or not 1 <= number <= args["layers"]:
        raise ValueError(f"{data}: {', '.join(wrong)} must be at least 1, and layer 1 to {args['layers']}")
    train, validation, test = text.split(text.standard_library(BYTES[size]))
    given = Given(train, train, validation, **args, batches=1)
    net = training.network(lambda g: Mlp(g.d, g.width, "relu", k), given, run)
    for _ in training.train(net, given, run, STEPS[size], LEARNING_RATE):
        pass
    net.eval()
    mlp = net.blocks[number - 1].feed_forward
    found = {"up": mlp.up.weight, "up_bias": mlp.up.bias, "down": mlp.down.weight.T, "bias": mlp.down.bias}
    found |= {"calibration": inputs(net, validation, given, number, size, run), "test": inputs(net, test, given, number, size, run)}
    return {name: np.ascontiguousarray(value.detach().float().cpu().numpy()) for name, value in found.items()}


@torch.no_grad()
def inputs(net, source: np.ndarray, given, number: int, size: str, run):
    """TOKENS inputs of the layer, from random places of random windows."""
    rng = np.random.default_rng(17)
    ids = run.put(text.windows(source, -(-4 * TOKENS[size] // given.length), given.length, rng))
    with training.inputs_of(net) as seen:
        net(ids)
    x = seen[number - 1]
    return x[run.put(rng.permutation(len(x))[: TOKENS[size]])]
