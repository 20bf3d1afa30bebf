"""One feed-forward ReLU layer answers a few tokens: dense, or without the rows of W2 that a token does not use.

The layer is that of a network trained here (`trained`, activity as measured), or drawn with a wanted share of active neurons
(`drawn`). Every exact method must give the dense answer; methods that drop active neurons say how far off they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Method, Metric, Task, Wrong

STEPS = {"smoke": 20, "quick": 400, "full": 4000}  # of training, where the layer is of a trained network
TOKENS = {"smoke": 64, "quick": 256, "full": 256}  # held-out ones to answer, and as many to calibrate with
BATCHES = {"smoke": 4, "quick": 8, "full": 8}
TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}


@dataclass(frozen=True, eq=False)
class Layer:
    """relu(x up^T + up_bias) down + bias: up and down [f, d] with a row for each neuron, float32; `calibration` [m, d].

    `k` above 0: the layer was trained with Top-k, which is part of it: of each token's activations the k largest count.
    """

    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    bias: np.ndarray
    calibration: np.ndarray
    k: int = 0


@dataclass(frozen=True, eq=False)
class Hidden:
    x: np.ndarray
    answer: np.ndarray
    nonzero: np.ndarray
    batches: int


class LayerServer(Method):
    """The interface: `place(layer, put)` moves the weights to the device, `forward(x)` answers x [n, d] of the run's dtype."""

    backend = "torch"
    deterministic = True

    exact = True  # drops no active neuron

    def place(self, layer: Layer, put) -> None:
        raise TypeError(f"method '{self.name}' has no place()")

    def forward(self, x):
        raise TypeError(f"method '{self.name}' has no forward()")

    def skip(self, given) -> str:
        known = ", ".join(TOLERANCE)
        return "" if self.run.dtype in TOLERANCE else f"the task knows the rounding of {known}, not of {self.run.dtype}"

    def build(self, given: Layer, run):
        import torch

        dtype = getattr(torch, run.dtype)
        self.width, self.d, self.dtype = *given.up.shape, dtype
        with torch.no_grad():
            self.place(given, lambda array: run.put(np.ascontiguousarray(array)).to(dtype))

    def answer(self, x):
        import torch

        if x.dim() != 2 or x.shape[1] != self.d or x.dtype != self.dtype:
            raise ValueError(f"x must be [tokens, {self.d}] of {self.dtype}, not {tuple(x.shape)} of {x.dtype}")
        with torch.no_grad():
            return self.forward(x)

    def flops_of(self, n: int, width: int, rows: float | None = None, active: float | None = None, union: float | None = None):
        """n tokens through a layer of `width`; `rows` of W2 multiplied, `union` of them read (None: all)."""
        up, whole = 2.0 * n * self.d * width, float(n * width)
        rows, active, union = (
            whole if rows is None else rows,
            whole if active is None else active,
            width if union is None else union,
        )
        moved = self.dtype.itemsize * (width * (self.d + 1) + union * self.d + self.d + 2 * n * self.d)
        return Flops(
            up + 2.0 * self.d * rows, useful=up + 2.0 * self.d * active, dense=4.0 * n * self.d * self.width,
            other=2.0 * n * width, bytes=moved,
        )  # fmt: skip


class LayerInference(Task):
    name = "sparse-mlp"
    version = 1
    title = "A feed-forward layer for few tokens: what unused neurons save"
    interface = LayerServer
    phases = ("build", "serve")
    data = (
        Data("drawn", {"d": 256, "width": 1024, "nonzero": 0.1}),
        Data("trained", {"d": 64, "heads": 4, "layers": 3, "width": 1024, "length": 64, "batch": 16, "layer": 2, "k": 0}),
    )
    cases = (
        Case("batch-1", {"tokens": 1}),
        Case("batch-2", {"tokens": 2}, ("quick", "full")),
        Case("batch-8", {"tokens": 8}),
    )
    metrics = {"relative-error": Metric("1", "lower", "token"), "nonzero": Metric("1", "lower", "token")}
    baselines = ("dense-relu", "static-neurons")

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        if data.name != "trained":
            return {}
        from . import pretrained

        return pretrained.layer(data, size, seed, run)

    def layer_of(self, data, size, seed, prepared) -> tuple[Layer, np.ndarray]:
        """The layer and the held-out tokens x."""
        if data.name == "trained":
            names = ("up", "up_bias", "down", "bias", "calibration")
            return Layer(*(prepared[name] for name in names), data.args["k"]), prepared["test"]
        d, width, share = (data.args[name] for name in ("d", "width", "nonzero"))
        if d < 1 or width < 1 or not 0 < share < 1:
            raise ValueError(f"{data}: d and width must be at least 1, nonzero between 0 and 1")
        from statistics import NormalDist

        rng = np.random.default_rng((seed, 11))
        up, down = (rng.standard_normal((width, d), dtype=np.float32) for _ in range(2))
        # x is normal and so is x up^T, with variance 1: the bias says how often a neuron is above zero.
        up *= np.float32(d**-0.5)
        down *= np.float32(width**-0.5)
        up_bias = np.full(width, NormalDist().inv_cdf(share), np.float32)
        bias, calibration, x = (rng.standard_normal(shape, dtype=np.float32) for shape in (d, (TOKENS[size], d), (TOKENS[size], d)))
        return Layer(up, up_bias, down, bias, calibration), x

    def given(self, data, size, seed, prepared) -> Layer:
        return self.layer_of(data, size, seed, prepared)[0]

    def hidden(self, data, size, seed, prepared) -> Hidden:
        layer, x = self.layer_of(data, size, seed, prepared)
        a = np.maximum(x @ layer.up.T + layer.up_bias, 0)
        if layer.k:
            a = np.where(a >= -np.sort(-a, 1)[:, layer.k - 1 : layer.k], a, 0)
        return Hidden(x, a @ layer.down + layer.bias, (a > 0).mean(1), BATCHES[size])

    def places(self, case, hidden) -> np.ndarray:
        """Which tokens each batch asks: [batches, tokens]."""
        count = max(3, min(hidden.batches, len(hidden.x) // case["tokens"]))
        return np.arange(count * case["tokens"]).reshape(count, -1) % len(hidden.x)

    def batches(self, case, hidden, run) -> list:
        import torch

        return [run.put(hidden.x[rows]).to(getattr(torch, run.dtype)) for rows in self.places(case, hidden)]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        import torch

        good = self.batches(case, hidden, run)[0]
        return {
            "too wide": torch.cat((good, good[:, :1]), 1),
            "one dimension": good[0],
            "another dtype": good.double(),
        }

    def call(self, method, batch, case):
        return method.answer(batch)

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        places = self.places(case, hidden)
        errors = []
        for rows, out in zip(places, outputs):
            out = np.asarray(out, np.float64)
            if out.shape != hidden.answer[rows].shape or not np.isfinite(out).all():
                raise Wrong(f"the answer has shape {out.shape}, or numbers that are not finite")
            errors.append(np.linalg.norm(out - hidden.answer[rows], axis=1) / np.linalg.norm(hidden.answer[rows], axis=1))
        error, limit = np.concatenate(errors), TOLERANCE[method.run.dtype]
        if method.exact and not error.max() <= limit:
            raise Wrong(f"an exact method is off by {error.max():.2g} of the answer's norm, more than {limit:.2g}")
        return {"relative-error": error, "nonzero": hidden.nonzero[places].ravel()}

    def unfair(self, record, other) -> str:
        by_name = {one["method"]: one for one in (record, other)}
        small = by_name.pop("static-neurons", None)
        if small is None or len(by_name) != 1 or "dense-relu" in by_name:
            return ""
        ((name, arm),) = by_name.items()
        mine, theirs = (one["readings"].get("serve.flops", {}).get("value") for one in (small, arm))
        if mine and theirs and abs(mine / theirs - 1) > 0.05:
            return f"static-neurons executes {mine:.4g} FLOP a call, {name} {theirs:.4g}; set its `fraction` to make them equal"
        return ""
