"""What the tasks of retrieval and of adaptive classification are given: encoders trained by the area's recipe, as numbers.

One MRL encoder with its classifiers, one with tied classifiers (MRL-E), and a network for every size, the largest of which is also
the plain full-size model. All get the same steps at a fixed rate; nobody is charged for them. PyTorch is imported inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Data

from .sources import Encoder, Part, encoder, split

STEPS = {"smoke": 60, "quick": 600, "full": 2000}
RATE = 0.01
FAMILIES = ("mrl", "plain", "separate")  # embeddings that are made: [n, d], [n, d], and one size after the other [n, 2 d - 2]


@dataclass(frozen=True)
class Bench:
    """What training asks of a run, in PyTorch whatever the framework of the method for which the material is made."""

    device: str
    seed: int

    def put(self, array: np.ndarray):
        import torch

        return torch.from_numpy(array.copy()).to(self.device)

    def numpy(self, tensor) -> np.ndarray:
        return tensor.detach().cpu().numpy()


def networks(train: Part, spec: Encoder, steps: int, run) -> dict[str, tuple]:
    """arm -> (networks, heads), trained and in eval mode."""
    import torch

    from .encoder import network
    from .mrl import Mrl
    from .mrl_e import MrlE
    from .recipe import optimise
    from .separate_sizes import SeparateSizes

    found = {}
    for arm in (Mrl(), MrlE(), SeparateSizes()):
        arm.run = run
        nets = torch.nn.ModuleList(network(spec, out, run.seed, run.device) for out in arm.outputs(spec))
        heads = arm.heads(spec).to(run.device)
        modules = torch.nn.ModuleList([*nets, heads])

        def loss(x, y, arm=arm, nets=nets, heads=heads):
            return arm.loss(nets, heads, x, y)

        for _ in optimise(modules, loss, train, steps=steps, learning_rate=RATE, seed=run.seed, run=run):
            pass
        found[arm.name] = nets, heads
    return found


def embeddings(trained: dict, inputs: np.ndarray, run) -> dict[str, np.ndarray]:
    """Families of `FAMILIES` and "mrl-e", float32."""
    import torch

    from .encoder import served
    from .represent import embed_all

    with torch.no_grad():
        each = {name: [run.numpy(embed_all(served(net), inputs, run)) for net in nets] for name, (nets, _) in trained.items()}
    return {
        "mrl": each["mrl"][0],
        "mrl-e": each["mrl-e"][0],
        "plain": each["separate-sizes"][-1],
        "separate": np.concatenate(each["separate-sizes"], 1),
    }


def made(data: Data, size: str, run) -> tuple[Encoder, dict[str, Part], dict, dict[str, dict[str, np.ndarray]]]:
    """The encoder's shape, the parts of the data, the trained networks, and part -> family -> embeddings."""
    parts = split(data, size)
    spec, bench = encoder(data, parts), Bench(run.device, run.seed)
    trained = networks(parts["train"], spec, STEPS[size], bench)
    return spec, parts, trained, {name: embeddings(trained, part.inputs, bench) for name, part in parts.items()}


def columns(family: str, m: int, sizes: tuple[int, ...]) -> slice:
    """Where the m numbers of size m stand in the embeddings of a family."""
    start = sum(size for size in sizes if size < m) if family == "separate" else 0
    return slice(start, start + m)


def kept(arrays: dict[str, dict[str, np.ndarray]], wanted: dict[str, str], families: tuple[str, ...]) -> dict[str, Any]:
    """Names as they stand in the prepared file: "<as>-<family>" for each part in `wanted`."""
    return {f"{name}-{family}": arrays[part][family] for part, name in wanted.items() for family in families}
