"""A small transformer answers questions about documents: what reading them gains, and what it costs when it can be done before.

Fairness: every arm gets the same questions, recipe and steps (or FLOPs), the same width, and a decoder of the same depth. The
documents of the test are known when a method has been trained, as a corpus is: it may encode or prefill them.
Controls: no context at all, and documents that belong to another question (`-shuffled`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Log, Method, Metric, Step, Task, Wrong, param

from . import corpus, costs, scoring
from .corpus import VOCABULARY, Given, Hidden, Questions

BYTES = {"smoke": 400_000, "quick": 2_000_000, "full": 8_000_000}
ASKED = {"smoke": 4, "quick": 256, "full": 256}  # questions of the test, and of validation


class ContextReader(Method):
    """The interface: `networks` makes the modules, `logits` answers and can be trained; the rest is about caches.

    Tokens are int64 on the device: inputs [b, n], documents [b, k, length]; answers are logits [b, n, vocabulary].
    """

    backend = "torch"
    # AdamW's; the same default and range for every arm. At 0.001 and at 0.006 not every arm learns `kvbook` within 600 steps.
    learning_rate = param(0.003, tune=Log(0.001, 0.01))

    def networks(self, given: Given):
        raise TypeError(f"method '{self.name}' has no networks()")

    def logits(self, inputs, documents):
        raise TypeError(f"method '{self.name}' has no logits()")

    def store(self, library) -> None:
        """After training: keep of the library [count, k, length] what later calls may reuse. Nothing, unless overridden."""

    def read_cached(self, inputs, documents, places, together: bool):
        """As `read`, of documents at `places` [b, k] of the stored library (count * k documents).

        Without `together` every document is stored, but these were never seen in this combination; the first one was first.
        """
        return self.read(inputs, documents)

    def encode(self, documents):
        """What would be kept of documents [b, k, length], as arrays."""
        raise NotImplementedError("nothing of a context can be computed before the question is known")

    def online(self, batch: int, cached: str) -> costs.Cost:
        """Cost of a call; cached is "nothing", "apart" or "together"."""
        raise TypeError(f"method '{self.name}' has no online()")

    def offline(self, batch: int) -> costs.Cost:
        """Cost of `encode` for the documents of `batch` questions."""
        return costs.Cost()

    def filling(self, batch: int) -> costs.Cost:
        """Cost of `store` for the documents of `batch` questions."""
        return self.offline(batch)

    def stored_bytes(self) -> float:
        """Bytes kept for each context token."""
        return 0.0

    # -- what all arms share -----------------------------------------------------------------------------------------------

    def skip(self, given: Given) -> str:
        return "" if self.run.dtype == "float32" else f"the recipe is float32, not {self.run.dtype}"

    def build(self, given: Given, run):
        from . import training

        if not run.budget.steps:
            raise ValueError("context-reading needs a budget in steps or FLOPs, the same for every arm: budget = {steps = 600}")
        self.prepare(given)
        for _ in training.train(self, given, run):
            yield Step(samples=given.batch)
        self.finish()

    def prepare(self, given: Given) -> None:
        import torch

        from . import training

        self.given = given
        torch.manual_seed(self.run.seed)
        self.net = training.initialised(self.networks(given)).to(self.run.device)

    def finish(self) -> None:
        import torch

        self.net.eval()
        with self.run.part("encode"), torch.no_grad():
            self.store(self.run.put(self.given.library))

    def save(self, folder: Path) -> None:
        from ..shared import transformer

        np.savez(Path(folder) / "network.npz", **transformer.store(self.net))

    def load(self, folder: Path, given: Given) -> None:
        from ..shared import transformer

        self.prepare(given)
        with np.load(Path(folder) / "network.npz", allow_pickle=False) as file:
            transformer.restore(self.net, dict(file))
        self.finish()

    def read(self, inputs, documents):
        """Logits where nothing is cached."""
        import torch

        with torch.no_grad():
            return self.logits(inputs, documents)

    def parameters(self) -> int:
        from ..shared import transformer

        return transformer.parameter_count(self.net)

    def step_flops(self, given: Given) -> float:
        self.given = given
        return self.online(given.batch, "nothing").training

    def flops(self, phase, case, tally):
        if phase == "build":
            steps, stored = self.run.budget.steps, self.filling(len(self.given.library)).forward
            return Flops(steps * self.step_flops(self.given) + stored)
        cost = self.offline(case["batch"]) if case["cached"] == "offline" else self.online(case["batch"], case["cached"])
        return Flops(cost.forward, useful=cost.forward)


class ContextTask(Task):
    """Bits and accuracy with one's documents and with foreign ones; the cost by what is cached; bytes kept; break-even."""

    name = "context-reading"
    version = 1
    title = "Answers from documents that could be encoded before the question"
    interface = ContextReader
    phases = ("build", "serve")
    data = (
        Data("kvbook", {"d": 64, "heads": 4, "layers": 2, "documents": 2, "pairs": 8, "asked": 8, "batch": 64}),
        Data(
            "stdlib-text",
            {"d": 64, "heads": 4, "layers": 2, "documents": 2, "length": 128, "prompt": 16, "answer": 48, "batch": 32},
        ),
    )
    cases = (
        Case("new-1", {"cached": "nothing", "batch": 1}),
        Case("regrouped-1", {"cached": "apart", "batch": 1}),
        Case("cached-1", {"cached": "together", "batch": 1}),
        Case("offline-1", {"cached": "offline", "batch": 1}),
        Case("new-16", {"cached": "nothing", "batch": 16}, ("quick", "full")),
        Case("regrouped-16", {"cached": "apart", "batch": 16}, ("quick", "full")),
        Case("cached-16", {"cached": "together", "batch": 16}, ("quick", "full")),
    )
    metrics = {
        "bits": Metric("bit", "lower", "question"),
        "accuracy": Metric("1", "higher", "question"),
        "bits-shuffled": Metric("bit", "higher", "question"),
        "accuracy-shuffled": Metric("1", "lower", "question"),
        "bytes-per-token": Metric("B", "lower", "cache"),
        "break-even": Metric("1", "lower", "context"),
        "break-even-prefix": Metric("1", "lower", "context"),
    }
    baselines = ("no-context", "coupled", "fusion-in-decoder")
    objective = "bits"
    prepares = ()

    def prepare(self, data, size, seed, run) -> dict[str, Any]:
        from ..shared import text

        return {"text": text.standard_library(BYTES[size])}

    def given(self, data, size, seed, prepared) -> Given:
        return self._parts(data, size, seed, prepared)[0]

    def hidden(self, data, size, seed, prepared) -> Hidden:
        given, questions = self._parts(data, size, seed, prepared)
        return Hidden(questions, given)

    def _parts(self, data, size, seed, prepared) -> tuple[Given, Questions]:
        from ..shared import text

        args, count = dict(data.args), ASKED[size]
        if wrong := [name for name, value in args.items() if value < 1]:
            raise ValueError(f"{data}: {', '.join(wrong)} must be at least 1")
        if data.name == "kvbook":
            pairs, n = args.pop("pairs"), args.pop("asked")
            drawn = [corpus.kvbook(np.random.default_rng((seed, i)), count, args["documents"], pairs, n) for i in (2, 3)]
            train, sizes = np.zeros(0, np.uint8), {"length": 2 * pairs, "prompt": n, "n": n}
        else:
            answer, length, prompt = args.pop("answer"), args["length"], args["prompt"]
            train, *parts = text.split(prepared["text"])
            size_of = args["documents"] * length + prompt + answer
            drawn = [corpus.passages(corpus.blocks(p, count, size_of), args["documents"], length, prompt) for p in parts]
            sizes = {"n": prompt + answer - 1}
        return Given(data.name, train, drawn[0], drawn[1].documents, **args, **sizes), drawn[1]

    def evaluate(self, method, given) -> dict[str, float]:
        from . import training

        method.net.eval()
        found = scoring.judged(training.answers(method, given.validation), given.validation.targets)
        method.net.train()
        return {name: float(values.mean()) for name, values in zip(("bits", "accuracy"), found)}

    def batches(self, case, hidden, run) -> list:
        asked, size = hidden.questions, case["batch"]
        made = []
        for i in range(max(3, len(asked) // size)):
            rows = np.arange(i * size, (i + 1) * size) % len(asked)
            made.append(tuple(run.put(array) for array in self._batch(asked.part(rows), rows)))
        return made

    @staticmethod
    def _batch(part: Questions, rows: np.ndarray) -> tuple:
        k = part.documents.shape[1]
        return part.inputs, part.documents, rows[:, None] * k + np.arange(k)

    def bad_batches(self, case, hidden, run) -> dict[str, Any]:
        """A question of too many tokens, too few documents, and documents of another length."""
        part, rows = hidden.questions.part(slice(0, 2)), np.arange(2)
        inputs, documents, places = (run.put(array) for array in self._batch(part, rows))
        long = run.put(np.concatenate((part.inputs, part.inputs), 1))
        return {
            "a question of too many tokens": (long, documents, places),
            "a document missing": (inputs, documents[:1], places),
            "documents of another length": (inputs, documents[:, :, :-1], places),
        }

    def call(self, method, batch, case):
        inputs, documents, places = batch
        given = method.given
        if documents.shape[1:] != (given.documents, given.length) or not len(inputs) == len(documents) == len(places):
            wanted = f"{len(inputs)} times {given.documents} documents of {given.length} tokens"
            raise ValueError(f"documents {list(documents.shape)} for {len(inputs)} questions: {wanted} are expected")
        if inputs.shape[1] > given.n:
            raise ValueError(f"a question of {inputs.shape[1]} tokens; {given.n} are the most")
        if case["cached"] == "offline":
            return method.encode(documents)
        if case["cached"] == "nothing":
            return method.read(inputs, documents)
        return method.read_cached(inputs, documents, places, case["cached"] == "together")

    def items(self, batch, output) -> int:
        return len(batch[0])

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        from . import training

        if not all(np.isfinite(out).all() for out in outputs):
            raise Wrong("the output holds NaN or infinity")
        if case["cached"] == "offline":
            return {}
        asked, logits = hidden.questions, np.concatenate(outputs)
        targets = asked.targets[np.arange(len(logits)) % len(asked)]
        if logits.shape != (*targets.shape, VOCABULARY):
            raise Wrong(f"logits {logits.shape} for {len(targets)} questions of {given.n} tokens and {VOCABULARY} symbols")
        bits, accuracy = scoring.judged(logits, targets)
        foreign = Questions(np.roll(asked.documents, len(asked) // 2, 0), asked.inputs, asked.targets)
        bits_of, accuracy_of = scoring.judged(training.answers(method, foreign), asked.targets)
        found = {"bits": bits, "accuracy": accuracy, "bits-shuffled": bits_of, "accuracy-shuffled": accuracy_of}
        return found | {"bytes-per-token": method.stored_bytes()} | scoring.break_even(method, given, case)
