"""One feed-forward layer of a small transformer on real text is the method's: dense, or experts that share its work.

Fairness: every arm gets the same network, recipe, steps and active FLOPs a token in its layer: a dense layer of width 2 f, or two
experts of width f (or one of 2 f) a token. Bytes of Python sources; 20 % masked and predicted from both sides, or the next byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

BYTES = {"smoke": 60_000, "quick": 2_000_000, "full": 2_000_000}
EVALUATED = {"smoke": 2, "quick": 24, "full": 64}  # batches
BATCHES = 3
MASK, VOCABULARY, SHARE = 128, 129, 0.2
SERVED = ("float32", "bfloat16")


@dataclass(frozen=True, eq=False)
class Given:
    """Texts uint8; d, heads, layers, length, batch as in the data's arguments; `width` is f, of one of two active experts."""

    train: np.ndarray
    validation: np.ndarray
    d: int
    heads: int
    layers: int
    width: int
    length: int
    batch: int
    causal: bool
    batches: int

    @property
    def tokens(self) -> int:
        return self.length * self.batch


@dataclass(frozen=True, eq=False)
class Hidden:
    test: np.ndarray
    given: Given
    seed: int


class ExpertLayer(Method):
    """The interface: `layer(given)` makes the module of the last block, (x [n, d], ids [n]) -> [n, d].

    A module may leave `auxiliary` (a scalar added to the loss) and have `shares()` (a dict of numbers for the record) about the last call.
    """

    backend = "torch"
    learning_rate = param(0.002, tune=Log(0.0005, 0.01))  # AdamW's; the same default and tuning range for every arm

    def layer(self, given: Given):
        raise TypeError(f"method '{self.name}' has no layer()")

    def layer_flops(self, n: int, training: bool = False) -> Flops:
        """FLOPs of the layer for n tokens in one call, forward; buffers may differ in training."""
        raise TypeError(f"method '{self.name}' has no layer_flops()")

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype in SERVED else f"networks are served in {' or '.join(SERVED)}, not in {self.run.dtype}"

    def build(self, given: Given, run):
        from . import training

        if not (run.budget.steps or run.budget.time):
            raise ValueError("experts need a budget, the same for every arm: budget = {steps = 600} or {time = 60}")
        self.prepare(given)
        for loss in training.train(self, given, run):
            self.last_loss = loss
            yield Step(samples=given.tokens)
        self.settle()

    def settle(self) -> None:
        """From training to serving: the recipe is float32, its result is served in the run's number format."""
        import torch

        self.net.eval().to(getattr(torch, self.run.dtype))

    def prepare(self, given: Given) -> None:
        from . import training

        self.given = given
        self.net = training.network(self, given, self.run)

    def save(self, folder: Path) -> None:
        from ..shared import transformer

        np.savez(Path(folder) / "network.npz", **transformer.store(self.net))

    def load(self, folder: Path, given: Given) -> None:
        from ..shared import transformer

        self.prepare(given)
        with np.load(Path(folder) / "network.npz", allow_pickle=False) as file:
            transformer.restore(self.net, dict(file))
        self.settle()

    def predict(self, ids):
        """int64 [batch, length] -> logits [batch, length, vocabulary]."""
        import torch

        with torch.no_grad():
            return self.net(ids)

    def apply(self, x, ids):
        """The layer alone: [n, d], [n] -> [n, d]."""
        import torch

        with torch.no_grad():
            return self.net.blocks[-1].feed_forward(x, ids)

    def parameters(self) -> int:
        from ..shared import transformer

        return transformer.parameter_count(self.net)

    def step_flops(self, given: Given) -> float:
        """Three times the forward pass; the backward pass of fused attention computes the scores anew, which is half as much again."""
        self.given = given
        scores = 4.0 * given.layers * given.tokens * given.length * given.d
        return 3 * self.network_flops(given.tokens, training=True).executed + 0.5 * scores

    def network_flops(self, n: int, training: bool = False) -> Flops:
        from ..shared.transformer import attention_flops, feed_forward_flops

        given = self.given
        rest = given.layers * attention_flops(n, given.length, given.d) + 2.0 * n * given.d * VOCABULARY
        rest += (given.layers - 1) * feed_forward_flops(n, given.d, 2 * given.width)
        own = self.layer_flops(n, training)
        return Flops(rest + own.executed, useful=rest + own.useful, dense=rest + feed_forward_flops(n, given.d, 2 * given.width))

    def flops(self, phase, case, tally):
        if phase == "build":
            return None
        return self.layer_flops(case["tokens"]) if case["part"] == "layer" else self.network_flops(case["tokens"])


class ExpertTask(Task):
    """Bits per byte at equal steps and active FLOPs, balance of the load, and the speed of the layer by itself."""

    name = "expert-layers"
    version = 1
    title = "Mixture-of-experts layers in a byte-level transformer"
    interface = ExpertLayer
    phases = ("build", "serve")
    data = (
        Data("masked-bytes", {"d": 64, "heads": 4, "layers": 2, "width": 256, "length": 64, "batch": 16}),
        Data("next-bytes", {"d": 64, "heads": 4, "layers": 2, "width": 256, "length": 64, "batch": 16}),
    )
    cases = (
        Case("network-1024", {"part": "network", "tokens": 1024}),
        Case("layer-4096", {"part": "layer", "tokens": 4096}, ("quick", "full")),
        Case("layer-16384", {"part": "layer", "tokens": 16384}, ("full",)),
    )
    metrics = {
        "bits-per-byte": Metric("bit", "lower", "batch"),
        "dropped": Metric("1", "lower", "batch"),
        "unserved": Metric("1", "lower", "batch"),
        "largest-load": Metric("1", "lower", "batch"),
    }
    baselines = ("dense", "hash-routing")
    objective = "bits-per-byte"
    prepares = ()

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from ..shared import text

        return {"text": text.standard_library(BYTES[size])}

    def given(self, data, size, seed, prepared) -> Given:
        from ..shared import text

        args = data.args
        wrong = [name for name in ("d", "heads", "layers", "width", "length", "batch") if args[name] < 1]
        if wrong:
            raise ValueError(f"{data}: {', '.join(wrong)} must be at least 1")
        train, validation, _ = text.split(prepared["text"])
        return Given(train, validation, **args, causal=data.name == "next-bytes", batches=EVALUATED[size])

    def hidden(self, data, size, seed, prepared) -> Hidden:
        from ..shared import text

        return Hidden(text.split(prepared["text"])[2], self.given(data, size, seed, prepared), seed)

    def evaluate(self, method, given) -> dict[str, float]:
        from . import training

        method.net.eval()
        found = training.bits(method, given, given.validation, seed=0)
        method.net.train()
        return {"bits-per-byte": float(np.mean([row["bits-per-byte"] for row in found]))}

    def batches(self, case, hidden, run) -> list:
        from ..shared import text
        from . import training

        made, given = [], hidden.given
        for i in range(BATCHES):
            rng = np.random.default_rng((hidden.seed, 3, i))
            if case["part"] == "layer":
                x = rng.standard_normal((case["tokens"], given.d), dtype=np.float32)
                made.append((training.served(run.put(x), run), run.put(rng.integers(0, MASK, case["tokens"]))))
            else:
                ids = text.windows(hidden.test, max(1, case["tokens"] // given.length), given.length, rng)
                made.append((run.put(training.hide(ids, given, rng)[0]),))
        return made

    def call(self, method, batch, case):
        return method.apply(*batch) if case["part"] == "layer" else method.predict(*batch)

    def items(self, batch, output) -> int:
        return batch[0].numel() if len(batch) == 1 else len(batch[0])

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        from . import training

        if not all(np.isfinite(out).all() for out in outputs):
            raise Wrong("the output holds NaN or infinity")
        if case["part"] == "layer":
            return {}
        rows = training.bits(method, given, hidden.test, seed=hidden.seed + 1)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
