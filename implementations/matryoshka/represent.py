"""From served networks and kept arrays to representations of m numbers: one smaller last layer for each size. PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .encoder import trunk
from .task import finite

AT_ONCE = 1000


def tables(nets, arrays: dict, sizes: tuple[int, ...]) -> dict[int, tuple]:
    """size -> (network, last layer's weight [m, hidden] and bias [m], classifier's weight [classes, m] and bias).

    `basis` [d, d] (rows are directions) and `mean` [d] turn the embedding before it is cut; the classifier `head` [classes, d] is
    cut or turned with it. `head-m` and `bias-m` are classifiers of one size.
    """
    found = {}
    for number, m in enumerate(sizes):
        net = nets[number if len(nets) > 1 else 0]
        weight, bias = net.linear.weight.detach(), net.linear.bias.detach()
        if "basis" in arrays:
            basis, mean = arrays["basis"][:m], arrays["mean"]
            last = basis @ weight, basis @ (bias - mean)
            head = arrays["head"] @ basis.T, arrays["bias"] + arrays["head"] @ mean
        else:
            last = weight[:m], bias[:m]
            head = (arrays[f"head-{m}"], arrays[f"bias-{m}"]) if f"head-{m}" in arrays else (arrays["head"][:, :m], arrays["bias"])
        found[m] = (net, *last, head[0].contiguous(), head[1])
    return found


@torch.inference_mode()
def represent(method, inputs, m: int):
    spec = method.spec
    if m not in method.tables:
        raise NotImplementedError(f"{m} is not one of the sizes {spec.sizes}")
    expected = (1, spec.side, spec.side) if spec.side else (spec.inputs,)
    if tuple(inputs.shape[1:]) != expected:
        raise ValueError(f"inputs of shape {tuple(inputs.shape)} do not fit an encoder of {expected}")
    net, weight, bias, head, offset = method.tables[m]
    z = F.linear(trunk(net, inputs), weight, bias)
    return z, F.linear(z, head, offset)


@torch.inference_mode()
def scores_by_size(method, inputs: np.ndarray) -> dict[int, np.ndarray]:
    """Class scores [n, classes] of every size; a network that serves several sizes runs once."""
    found: dict[int, list] = {m: [] for m in method.tables}
    for start in range(0, len(inputs), AT_ONCE):
        part, seen = method.run.put(inputs[start : start + AT_ONCE]), {}
        for m, (net, weight, bias, head, offset) in method.tables.items():
            if id(net) not in seen:
                seen = {id(net): trunk(net, part)}
            found[m].append(method.run.numpy(F.linear(F.linear(seen[id(net)], weight, bias), head, offset)))
    return {m: np.concatenate(parts) for m, parts in found.items()}


def represent_all(method, inputs: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [n, m] and class scores [n, classes] of all inputs, numpy. Wrong where they do not fit or are not finite."""
    found = []
    for start in range(0, len(inputs), AT_ONCE):
        part = inputs[start : start + AT_ONCE]
        z, scores = (np.asarray(method.run.numpy(one)) for one in method.represent(method.run.put(part), m))
        found.append((finite(z, (len(part), m)), finite(scores, (len(part), method.spec.classes))))
    return tuple(np.concatenate(parts) for parts in zip(*found))


def embed_all(net, inputs: np.ndarray, run) -> torch.Tensor:
    """Full embeddings [n, d] of a network, on the device."""
    parts = [run.put(inputs[start : start + AT_ONCE]) for start in range(0, len(inputs), AT_ONCE)]
    return torch.cat([net(part) for part in parts])
