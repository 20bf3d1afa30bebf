"""One training step's share of attention: the forward pass, and the gradients with respect to q, k and v.

The gradient of the output is standard normal, so that every output counts. Up to EVERY_ROW tokens all gradients of the timed
calls are compared with float64. Beyond, where that takes minutes, outputs and dq are compared on rows drawn anew; dk and dv, which
need all rows, on a further, untimed call whose output gradient is zero outside these rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from effbench import Case, Data, Metric, Wrong

from .differentiable import DifferentiableAttention
from .reference import exact_gradients, representable
from .task import BATCHES, SOME_ROWS, AttentionForward, cast, draw

EVERY_ROW = 1024
PARTS = ("o", "q", "k", "v")

# As in task.py. In float32 the worst head of 64 to 2,048 tokens was at 6e-7 (seen).
EXACT = {"float32": 1e-5, "float16": 0.03, "bfloat16": 0.15}


class AttentionTraining(AttentionForward):
    """Cost of forward and backward over the length. `relative-error` is the worst of output, dq, dk and dv of a head; `cosine-x` is
    the cosine of a head's dx with the exact one, 0 where a method has no gradient."""

    name = "attention-training"
    version = 1
    title = "Self-attention, forward and backward"
    interface = DifferentiableAttention
    phases = ("build", "serve")
    data = (Data("gaussian", {"heads": 8, "head_dim": 64, "batch": 1, "causal": False, "scale": 1.0}),)
    cases = (
        Case("n-64", {"length": 64, "backward": True}, ("smoke",)),
        Case("n-128", {"length": 128, "backward": True}, ("smoke",)),
        Case("n-256", {"length": 256, "backward": True}, ("quick", "full")),
        Case("n-512", {"length": 512, "backward": True}, ("quick", "full")),
        Case("n-1024", {"length": 1024, "backward": True}, ("quick", "full")),
        Case("n-2048", {"length": 2048, "backward": True}, ("quick", "full")),
        Case("n-4096", {"length": 4096, "backward": True}, ("full",)),
        Case("n-8192", {"length": 8192, "backward": True}, ("full",)),
        Case("n-16384", {"length": 16384, "backward": True}, ("full",)),
        Case("n-65536", {"length": 65536, "backward": True}, ("full",)),
    )
    metrics = {
        "relative-error": Metric("1", "lower", "head"),
        "cosine-q": Metric("1", "higher", "head"),
        "cosine-k": Metric("1", "higher", "head"),
        "cosine-v": Metric("1", "higher", "head"),
    }
    baselines = ("sdpa", "naive")
    objective = "relative-error"

    def evaluate(self, method, given) -> dict[str, float]:
        inputs = [representable(x, method.run.dtype) for x in (*given.calibration, gradient(given.calibration[0].shape, (0, 3)))]
        found = compare(self.asked(method, inputs), inputs, given.causal, method.run.dtype, np.arange(inputs[0].shape[2]))
        return {"relative-error": float(found["relative-error"].mean())}

    def asked(self, method, inputs) -> list[np.ndarray]:
        """The method's answer to numpy arrays, untimed."""
        run = method.run
        return run.numpy(method.gradients(*(cast(run.put(x), run.dtype) for x in inputs)))

    def inputs(self, case, hidden, index: int, dtype: str) -> list[np.ndarray]:
        q, k, v = draw(hidden.data, case["length"], (hidden.seed, 1, case["length"], index))
        g = gradient(q.shape, (hidden.seed, 3, case["length"], index))
        return [representable(x, dtype) for x in (q, k, v, g)]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        q, k, v, g = (cast(run.put(x), run.dtype) for x in self.inputs(self.cases[0], hidden, 0, run.dtype))
        return {"a gradient for fewer tokens": (q, k, v, g[:, :, :-1]), "keys for fewer tokens": (q, k[:, :, :-1], v, g)}

    def call(self, method, batch, case):
        return method.gradients(*batch)

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        if len(outputs) != BATCHES:
            raise Wrong(f"{len(outputs)} outputs for {BATCHES} batches")
        dtype, length, parts = method.run.dtype, case["length"], []
        for index, out in enumerate(outputs):
            inputs, rows = self.inputs(case, hidden, index, dtype), np.arange(length)
            check(out, inputs, dtype)
            if length > EVERY_ROW:
                rows = np.sort(np.random.default_rng((hidden.seed, 2, index)).choice(length, SOME_ROWS, replace=False))
                only = np.zeros_like(inputs[3])
                only[:, :, rows] = inputs[3][:, :, rows]
                again = self.asked(method, [*inputs[:3], only])
                check(again, inputs, dtype)
                out = (*out[:2], *again[2:])
            found = compare(out, inputs, given.causal, dtype, rows)
            worst = found["relative-error"].max()
            if method.exact and not worst <= EXACT[dtype]:
                raise Wrong(
                    f"relative error {worst:.3g} of output or gradients in batch {index} of {case.name}; an exact method in {dtype} "
                    f"stays below {EXACT[dtype]:g}"
                )
            parts.append(found)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def gradient(shape: tuple[int, ...], stream: tuple[int, ...]) -> np.ndarray:
    """Of the output, float32."""
    return np.random.default_rng(stream).standard_normal(shape, dtype=np.float32)


def check(out, inputs, dtype: str) -> None:
    """Wrong for a broken contract."""
    if len(out) != len(PARTS):
        raise Wrong(f"{len(out)} arrays for output, dq, dk and dv")
    for part, x in zip(PARTS, out):
        x = np.asarray(x)
        name = "the output" if part == "o" else f"d{part}"
        if x.shape != inputs[0].shape:
            raise Wrong(f"{name} has the shape {x.shape}, not {inputs[0].shape}")
        if x.dtype.name not in {dtype, "float32"}:  # numpy has no bfloat16: it arrives widened to float32
            raise Wrong(f"{name} is {x.dtype.name}, not {dtype}")
        if not np.isfinite(x.astype(np.float32)).all():
            raise Wrong(f"{name} holds NaN or infinity")


def compare(out, inputs, causal: bool, dtype: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of each head of each sequence, flat. Output and dq are looked at in `rows`, outside which g counts as zero for dk, dv."""
    check(out, inputs, dtype)
    errors, cosines = [], {part: [] for part in PARTS[1:]}
    for b, h in np.ndindex(inputs[0].shape[:2]):
        truth = exact_gradients(*(x[b, h] for x in inputs), rows, causal)
        mine = [np.asarray(x[b, h], dtype=np.float64) for x in out]
        mine = [mine[0][rows], mine[1][rows], *mine[2:]]
        errors.append(max(np.linalg.norm(x - y) / np.linalg.norm(y) for x, y in zip(mine, truth)))
        for part, x, y in zip(PARTS[1:], mine[1:], truth[1:]):
            norms = np.linalg.norm(x) * np.linalg.norm(y)
            cosines[part].append(float((x * y).sum() / norms) if norms else 0.0)
    return {"relative-error": np.array(errors), **{f"cosine-{part}": np.array(found) for part, found in cosines.items()}}
