"""The feed-forward layers of a small causal transformer are the method's: which neurons does a token use, and what does it cost to skip.

Fairness: every arm gets the same network around its layers, the same recipe and steps. Bytes of Python sources, the next byte is
asked. `noise` is the share of training targets that are replaced by random bytes, the same places for every arm; test text is clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

BYTES = {"smoke": 60_000, "quick": 2_000_000, "full": 8_000_000}
EVALUATED = {"smoke": 2, "quick": 16, "full": 64}  # batches
MOST_LAYERS = 6  # that have a metric of their own
VOCABULARY = 128
EQUAL = 0.05  # relative difference of serve.flops that still counts as equal


@dataclass(frozen=True, eq=False)
class Given:
    """Texts uint8; `targets` is the training text as it is asked for, with label noise; the rest as in the data's arguments."""

    train: np.ndarray
    targets: np.ndarray
    validation: np.ndarray
    d: int
    heads: int
    layers: int
    width: int
    length: int
    batch: int
    batches: int

    @property
    def tokens(self) -> int:
        return self.length * self.batch


@dataclass(frozen=True, eq=False)
class Hidden:
    test: np.ndarray
    given: Given
    seed: int


class TrainedLayer(Method):
    """The interface: `layer(given)` makes the feed-forward module of one block, an `Mlp` of mlp.py.

    `skips` says that the trained layers are served by the kernel that skips unused neurons.
    """

    backend = "torch"
    learning_rate = param(0.002, tune=Log(0.0005, 0.01))  # AdamW's; the same default and tuning range for every arm

    skips = False

    def layer(self, given: Given):
        raise TypeError(f"method '{self.name}' has no layer()")

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def build(self, given: Given, run):
        from . import training

        if not run.budget.steps:
            raise ValueError("trained layers need a budget in steps, the same for every arm: budget = {steps = 600}")
        self.prepare(given)
        for _ in training.train(self.net, given, run, run.budget.steps, self.learning_rate):
            yield Step(samples=given.tokens)
        self.finish()

    def prepare(self, given: Given) -> None:
        from . import training

        self.given = given
        self.net = training.network(self.layer, given, self.run)

    def finish(self) -> None:
        self.net.eval()
        if self.skips:
            for block in self.net.blocks:
                block.feed_forward.skip_unused(self.run, self.kernel)

    def save(self, folder: Path) -> None:
        from ..shared import transformer

        np.savez(Path(folder) / "network.npz", **transformer.store(self.net))

    def load(self, folder: Path, given: Given) -> None:
        from ..shared import transformer

        self.prepare(given)
        with np.load(Path(folder) / "network.npz", allow_pickle=False) as file:
            transformer.restore(self.net, dict(file))
        self.finish()

    def predict(self, ids):
        """int64 [batch, length] -> logits [batch, length, vocabulary]. What `Task.call` times."""
        import torch

        if ids.dim() != 2 or ids.is_floating_point():
            raise ValueError(f"ids must be integers [batch, length], not {ids.dtype} of shape {tuple(ids.shape)}")
        with torch.no_grad():
            out = self.net(ids)
        if self.skips:
            self.run.tally(**{name: (lambda name=name: self.counts(ids)[name]) for name in ("active", "rows")})
        return out

    def counts(self, ids) -> dict[str, float]:
        from . import training

        return training.counts(self.net, ids)

    def parameters(self) -> int:
        from ..shared import transformer

        return transformer.parameter_count(self.net)

    def hidden_width(self, given: Given) -> int:
        return given.width

    def step_flops(self, given: Given) -> float:
        """Three times the forward pass; the backward pass of fused attention computes the scores anew, which is half as much again."""
        from ..shared.transformer import feed_forward_flops

        rows = self.around(given, given.tokens) + given.layers * feed_forward_flops(given.tokens, given.d, self.hidden_width(given))
        return 3 * rows + 0.5 * 4.0 * given.layers * given.tokens * given.length * given.d

    def around(self, given: Given, n: int) -> float:
        """All but the feed-forward layers, forward, for n tokens in windows of the full length."""
        from ..shared.transformer import attention_flops

        return given.layers * attention_flops(n, given.length, given.d) + 2.0 * n * given.d * VOCABULARY

    def flops(self, phase, case, tally):
        """executed and useful: W1 whole, and of W2 the rows that were added. Of `lazy-neurons` and `top-k-mlp` in serving, the
        counter misses what the C and Triton kernels do; with kernel = "torch" it sees all."""
        if phase == "build":
            return None
        given, n = self.given, case["windows"] * self.given.length
        rest, width = self.around(given, n), self.hidden_width(given)
        whole = 2.0 * n * given.layers * given.d * width
        dense = rest + 4.0 * n * given.layers * given.d * given.width
        other = 2.0 * n * given.layers * width
        if not self.skips:
            return Flops(rest + 2 * whole, useful=rest + 2 * whole, dense=dense, other=other)
        executed, useful = (rest + whole + 2.0 * given.d * tally[name] for name in ("rows", "active"))
        return Flops(executed, useful=useful, dense=dense, other=other)


class ActivationTask(Task):
    """Perplexity at equal steps, the share of neurons in use layer by layer, and what label noise and corrupted inputs do to it."""

    name = "activation-sparsity"
    version = 1
    title = "Which neurons a trained transformer uses"
    interface = TrainedLayer
    phases = ("build", "serve")
    data = (Data("next-bytes", {"d": 64, "heads": 4, "layers": 3, "width": 256, "length": 64, "batch": 16, "noise": 0.0}),)
    cases = (Case("window-1", {"windows": 1}),)
    metrics = {
        "perplexity": Metric("1", "lower", "batch"),
        "perplexity-corrupted": Metric("1", "lower", "batch"),
        "calibration-error": Metric("1", "lower", "seed"),
        "nonzero": Metric("1", "lower", "batch"),
        "nonzero-1": Metric("1", "lower", "seed"),
        "nonzero-2": Metric("1", "lower", "seed"),
        "nonzero-3": Metric("1", "lower", "seed"),
        "nonzero-4": Metric("1", "lower", "seed"),
        "nonzero-5": Metric("1", "lower", "seed"),
        "nonzero-6": Metric("1", "lower", "seed"),
        "nonzero-over-initial": Metric("1", "lower", "batch"),
        "never-active": Metric("1", "lower", "seed"),
        "rarely-active": Metric("1", "higher", "seed"),
    }
    baselines = ("dense-relu", "dense-gelu", "dense-relu-small")
    objective = "perplexity"
    prepares = ()

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from ..shared import text

        return {"text": text.standard_library(BYTES[size])}

    def given(self, data, size, seed, prepared) -> Given:
        from ..shared import text

        args = dict(data.args)
        noise = args.pop("noise")
        wrong = [name for name, value in args.items() if value < 1]
        if wrong or not 0 <= noise < 1:
            raise ValueError(f"{data}: {', '.join(wrong) or 'noise'} must be {'at least 1' if wrong else '0 or more, below 1'}")
        if args["layers"] > MOST_LAYERS:
            raise ValueError(f"{data}: layers={args['layers']}, and there are metrics for {MOST_LAYERS}")
        train, validation, _ = text.split(prepared["text"])
        rng = np.random.default_rng((seed, 7))
        random = rng.integers(0, VOCABULARY, len(train), dtype=np.uint8)
        targets = np.where(rng.random(len(train)) < noise, random, train)
        return Given(train, targets, validation, **args, batches=EVALUATED[size])

    def hidden(self, data, size, seed, prepared) -> Hidden:
        from ..shared import text

        return Hidden(text.split(prepared["text"])[2], self.given(data, size, seed, prepared), seed)

    def evaluate(self, method, given) -> dict[str, float]:
        from . import training

        method.net.eval()
        rows = training.measured(method.net, given, given.validation, method.run, seed=0)
        method.net.train()
        return {name: float(np.mean(rows[name])) for name in ("perplexity", "nonzero")}

    def batches(self, case, hidden, run) -> list:
        from ..shared import text

        rng = np.random.default_rng((hidden.seed, 3))
        return [run.put(text.windows(hidden.test, case["windows"], hidden.given.length, rng)) for _ in range(4)]

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        long = np.zeros((1, hidden.given.length + 1), np.int64)
        return {"a longer window": run.put(long), "numbers for bytes": run.put(np.zeros((1, 4), np.float32))}

    def call(self, method, batch, case):
        return method.predict(batch)

    def items(self, batch, output) -> int:
        return batch.numel()

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        from . import training

        if not all(np.isfinite(out).all() for out in outputs):
            raise Wrong("the output holds NaN or infinity")
        seed = hidden.seed + 1
        found = training.measured(method.net, given, hidden.test, method.run, seed=seed)
        # The network before its first step, made anew: measured where no clock runs, and not assumed to use one half.
        initial = training.measured(
            training.network(method.layer, given, method.run).eval(), given, hidden.test, method.run, seed=seed
        )
        layers = [f"nonzero-{i + 1}" for i in range(given.layers)]
        least = max(layers, key=lambda name: found[name].mean() / initial[name].mean())
        found["nonzero-over-initial"] = found[least] / initial[least].mean()
        found |= {name: found[name].mean() for name in layers}  # one number each: a record has room for no more
        corrupted = training.measured(method.net, given, hidden.test, method.run, seed=seed, corrupted=0.1)
        return {**found, "perplexity-corrupted": corrupted["perplexity"]}

    def unfair(self, record, other) -> str:
        if record["budget"] != other["budget"]:
            return f"trained under different budgets: {record['budget']} and {other['budget']}"
        small = next((one for one in (record, other) if one["method"] == "dense-relu-small"), None)
        arm = other if small is record else record
        if small is None or arm["method"] in ActivationTask.baselines:
            return ""
        mine, theirs = (one["readings"].get("serve.flops", {}).get("value") for one in (small, arm))
        if mine and theirs and abs(mine / theirs - 1) > EQUAL:
            return f"dense-relu-small executes {mine:.4g} FLOP a call, {arm['method']} {theirs:.4g}; set its `fraction` to make them equal"
        return ""
