"""The sentence encoder all-MiniLM-L6-v2 (a BERT of 6 layers, mean of the tokens, unit length), by torch or by numpy.

Wang et al., "MiniLM" (arXiv:2002.10957); Reimers and Gurevych, "Sentence-BERT" (arXiv:1908.10084). Both ways compute in float32
the same function of the same weights; numpy's takes about twice as long on a CPU, torch's takes a GPU where there is one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..api.errors import DataError

LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12
MOST_HEADER = 1 << 20
Encoder = Callable[[Any], Any]  # token numbers int64 [texts, length] -> float32 [texts, WIDTH], numpy both


def read_safetensors(path: Path) -> dict[str, Any]:
    """Arrays of a .safetensors file, float32 or int64, as read-only maps. DataError where the header does not fit the file."""
    import numpy as np

    kinds = {"F32": "<f4", "I64": "<i8"}
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        raw = np.memmap(path, np.uint8, mode="r")[8 + length :]
        found = {}
        for name, told in header.items():
            start, stop = told["data_offsets"]
            kind = np.dtype(kinds[told["dtype"]])
            if not 0 <= start <= stop <= len(raw) or stop - start != math.prod(told["shape"]) * kind.itemsize:
                raise ValueError(f"'{name}' lies outside the file")
            found[name] = raw[start:stop].view(kind).reshape(told["shape"])
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"not a readable safetensors file ({error})", where=str(path), remedy="Fetch it again.") from error


def encoder(weights: dict[str, Any]) -> tuple[Encoder, str]:
    """The fastest encoder of this machine and its name: "cuda", "torch" or "numpy"."""
    try:
        import torch
    except ImportError:
        return with_numpy(weights), "numpy"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return with_torch(weights, device), "cuda" if device == "cuda" else "torch"


def layers(weights: dict[str, Any], place: Callable[[Any], Any]) -> tuple[dict, list[dict]]:
    """The embeddings' weights and those of each layer, put where they are needed; query, key and value as one matrix."""
    import numpy as np

    def part(name: str) -> tuple:
        return place(weights[f"{name}.weight"]), place(weights[f"{name}.bias"])

    found = []
    for number in range(LAYERS):
        top = f"encoder.layer.{number}"
        heads = [f"{top}.attention.self.{each}" for each in ("query", "key", "value")]
        found.append(
            {
                "qkv": tuple(place(np.concatenate([weights[f"{h}.{kind}"] for h in heads])) for kind in ("weight", "bias")),
                "out": part(f"{top}.attention.output.dense"),
                "norm1": part(f"{top}.attention.output.LayerNorm"),
                "up": part(f"{top}.intermediate.dense"),
                "down": part(f"{top}.output.dense"),
                "norm2": part(f"{top}.output.LayerNorm"),
            }
        )
    told = "embeddings.token_type_embeddings.weight"
    places = weights["embeddings.position_embeddings.weight"] + weights[told][0]
    start = {
        "words": place(weights["embeddings.word_embeddings.weight"]),
        "places": place(places),
        "norm": part("embeddings.LayerNorm"),
    }
    return start, found


def with_torch(weights: dict[str, Any], device: str) -> Encoder:
    import numpy as np
    import torch
    from torch.nn import functional

    start, stack = layers(weights, lambda array: torch.from_numpy(np.array(array)).to(device))

    def norm(rows, scale):
        return functional.layer_norm(rows, (WIDTH,), *scale, EPSILON)

    @torch.inference_mode()
    def encode(tokens):
        count, length = tokens.shape
        x = norm(start["words"][torch.from_numpy(tokens).to(device)] + start["places"][:length], start["norm"])
        for layer in stack:
            q, k, v = functional.linear(x, *layer["qkv"]).view(count, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, length, WIDTH)
            x = norm(x + functional.linear(seen, *layer["out"]), layer["norm1"])
            inner = functional.gelu(functional.linear(x, *layer["up"]))
            x = norm(x + functional.linear(inner, *layer["down"]), layer["norm2"])
        return functional.normalize(x.mean(1)).cpu().numpy()

    return encode


def with_numpy(weights: dict[str, Any]) -> Encoder:
    import numpy as np

    start, stack = layers(weights, np.asarray)

    def norm(rows, scale):
        rows = rows - rows.mean(-1, keepdims=True)
        return rows / np.sqrt((rows * rows).mean(-1, keepdims=True) + np.float32(EPSILON)) * scale[0] + scale[1]

    def linear(rows, scale):
        return rows @ scale[0].T + scale[1]

    def encode(tokens):
        count, length = tokens.shape
        x = norm(start["words"][tokens] + start["places"][:length], start["norm"]).reshape(count * length, WIDTH)
        for layer in stack:
            q, k, v = linear(x, layer["qkv"]).reshape(count, length, 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
            score = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(WIDTH // HEADS))
            share = np.exp(score - score.max(-1, keepdims=True))
            share /= share.sum(-1, keepdims=True)
            x = norm(x + linear((share @ v).swapaxes(1, 2).reshape(count * length, WIDTH), layer["out"]), layer["norm1"])
            x = norm(x + linear(gelu(linear(x, layer["up"])), layer["down"]), layer["norm2"])
        mean = x.reshape(count, length, WIDTH).mean(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    return encode


def gelu(x):
    """x Phi(x) with erf by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7: numpy has none."""
    import numpy as np

    size = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * size)
    tail = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = tail * t + np.float32(factor)
    half = 0.5 * tail * t * np.exp(-size * size)  # (1 - erf(size)) / 2
    return x * np.where(x >= 0, 1 - half, half)
