"""When are two results measured on the same data? The recipe must be the same, and what it made must agree.

The digest is over the recipe (name, version, arguments, seed, sha256 of downloads), not over the arrays: generated floats
differ in the last bit between machines. That the recipe made the same thing is checked by a summary within a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
MOST_SORTED = 1 << 20
CHUNK = 1 << 20


def digest(name: str, *, version: int, args: Mapping[str, Any] = {}, seed: int = 0, inputs: Mapping[str, str] = {}) -> str:
    """16 hex digits of the recipe. `args` hold numbers, texts, booleans, None and lists of them; 1 and 1.0 are the same."""
    recipe = {"name": name, "version": version, "args": dict(args), "seed": seed, "inputs": dict(inputs)}
    text = json.dumps(_plain(recipe, name), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, where) for inner in value]
    raise ValueError(f"{where}: {value!r} cannot be part of a data recipe; use numbers, texts, booleans and lists of them")


def summary(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per name: shape, dtype, mean, std, quantiles (QUANTILES), how many are not finite, and `mix`.

    `mix` is the mean of the standardised values under fixed weights in -1..1 by position, times sqrt(count): it moves by
    the order of 1 when rows are exchanged, which mean, std and quantiles do not see. Texts are summed up by their sha256.
    Complex numbers count as pairs of numbers. Quantiles of more than a million values are those of every k-th.
    """
    import numpy as np

    return {name: _summary(np.asarray(value)) for name, value in arrays.items()}


def _summary(array: Any) -> dict[str, Any]:
    import numpy as np

    row: dict[str, Any] = {"shape": list(array.shape), "dtype": array.dtype.name}
    if array.dtype.kind not in "biufc":
        if array.dtype.kind not in "US":
            raise ValueError(f"arrays of {array.dtype} have no summary")
        row["dtype"] = "text"  # its length is not part of the content
        return {**row, "sha256": hashlib.sha256("\0".join(map(str, array.ravel().tolist())).encode()).hexdigest()[:16]}
    flat = array.reshape(-1)
    if flat.dtype.kind == "c":
        flat = flat.view(flat.real.dtype)
    count = flat.size
    # Chunked: a float64 copy of a large uint8 array would take eight times its memory.
    bad, total = 0, 0.0
    for start in range(0, count, CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        finite = np.isfinite(part)
        bad += int(part.size - finite.sum())
        total += float(part[finite].sum())
    good = count - bad
    mean = total / good if good else 0.0
    square, mixed, low, high = 0.0, 0.0, math.inf, -math.inf
    for start in range(0, count, CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        index = np.arange(start, start + part.size, dtype=np.uint64)
        weight = (index * np.uint64(2654435761) % np.uint64(2**32)).astype(np.float64) / 2**31 - 1
        finite = np.isfinite(part)
        part = part[finite]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
        part -= mean
        square += float(part @ part)
        mixed += float(part @ weight[finite])
    std = math.sqrt(square / good) if good else 0.0
    # An odd step: an even one may stay in one column of a table.
    thin = flat[:: -(-count // MOST_SORTED) | 1].astype(np.float64)
    thin = thin[np.isfinite(thin)]
    inner = [float(value) for value in np.quantile(thin, QUANTILES[1:-1])] if thin.size else []
    return {
        **row,
        "mean": mean,
        "std": std,
        "quantiles": [low, *inner, high] if good and inner else [],
        "not_finite": bad,
        "mix": mixed / (std * math.sqrt(good)) if std > 0 else 0.0,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any], rtol: float = 1e-4) -> list[str]:
    """What two summaries disagree in, for people; empty when they agree.

    Numbers may differ by `rtol` times the larger scale of the array (its std and the size of its mean, whichever is larger).
    """
    found = [f"'{name}' is in one of them only" for name in sorted(set(one) ^ set(other))]
    for name in sorted(set(one) & set(other)):
        a, b = one[name], other[name]
        for key in ("shape", "dtype", "sha256", "not_finite"):
            if a.get(key) != b.get(key):
                found.append(f"{name}.{key}: {a.get(key)} and {b.get(key)}")
        if "mean" not in a or "mean" not in b:
            continue
        scale = max(a["std"], b["std"], abs(a["mean"]), abs(b["mean"]))
        pairs = [(key, a[key], b[key], scale) for key in ("mean", "std")]
        pairs.append(("mix", a["mix"], b["mix"], 1.0))
        if len(a["quantiles"]) != len(b["quantiles"]):
            found.append(f"{name}.quantiles: {len(a['quantiles'])} and {len(b['quantiles'])} of them")
        pairs += [
            (f"quantile {q:g}", x, y, max(scale, abs(x), abs(y))) for q, x, y in zip(QUANTILES, a["quantiles"], b["quantiles"])
        ]
        found += [f"{name}.{key}: {x:.9g} and {y:.9g}" for key, x, y, size in pairs if not abs(x - y) <= rtol * size]
    return found


def agrees(one: Mapping[str, Any], other: Mapping[str, Any], rtol: float = 1e-4) -> bool:
    return not differences(one, other, rtol)
