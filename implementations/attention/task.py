"""The forward pass of self-attention: softmax(q kᵀ / sqrt(d)) v, or whatever a method puts in its place.

A method is built once for a head layout and then called at several lengths. Inputs and outputs are [batch, heads, length,
head_dim] for everybody; a library that wants another layout converts inside its call, and pays for it there.

A case that a method cannot do (a score matrix that does not fit) is refused with `NotImplementedError("reason")` from
`attend`: the case is skipped with that reason, the others go on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from effbench import Case, Data, Flops, Method, Metric, Task, Wrong

from .reference import exact_rows, representable

BATCHES = 3
EVERY_ROW = 2048  # up to this length all query rows are checked, beyond it SOME_ROWS drawn anew for each head and batch
SOME_ROWS = 512
CALIBRATION = {"smoke": 64, "quick": 256, "full": 256}

# Relative error up to which a method that calls itself exact is. Rounding q kᵀ to the run's dtype costs up to 3e-6, 3e-3 and
# 4e-2 on the data below (seen: float16 to 128 tokens, the others to 2,048). At 256 tokens the slips that the tests try in
# half precision (no scale, a mask one off) cost over 0.1; at length they fade, and float32 is what tells.
EXACT = {"float32": 1e-5, "float16": 0.02, "bfloat16": 0.1}


@dataclass(frozen=True)
class Given:
    """What a method may see: the head layout, and q, k, v (float32, [batch, heads, length, head_dim]) for calibration."""

    heads: int
    head_dim: int
    batch: int
    causal: bool
    calibration: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Hidden:
    """How the test inputs are drawn. They are drawn anew where they are needed: at 65,536 tokens they take over 1 GB."""

    data: Data
    seed: int


class Attention(Method):
    """Self-attention without its projections. A technique implements `compute`; its inputs must stay unchanged.

    `compute` should be differentiable where the framework allows it, so that a training step can be built on it.
    """

    exact = False  # True: the answer is softmax attention up to rounding, and anything else is wrong

    def build(self, given: Given, run):
        """Take over the head layout. Techniques that draw features or read the calibration extend it."""
        self.heads, self.head_dim, self.batch, self.causal = given.heads, given.head_dim, given.batch, given.causal
        self.room = float("inf")  # bytes that one call may add; methods that hold the score matrix ask the device

    def attend(self, q, k, v):
        """Attention of q over k and v, in the framework's arrays, all [batch, heads, length, head_dim]; same shape back.

        ValueError for shapes that do not fit; NotImplementedError, with the reason, for a length that is beyond this method.
        """
        shape = q.shape
        if len(shape) != 4 or k.shape != shape or v.shape != shape:
            found = ", ".join(str(tuple(x.shape)) for x in (q, k, v))
            raise ValueError(f"q, k and v must have one shape [batch, heads, length, head_dim], not {found}")
        if 0 in shape:
            raise ValueError(f"attention over nothing: the shape {tuple(shape)} has a zero in [batch, heads, length, head_dim]")
        if shape[1] != self.heads or shape[3] != self.head_dim:
            raise ValueError(f"built for {self.heads} heads of {self.head_dim}, called with {shape[1]} heads of {shape[3]}")
        return self.compute(q, k, v)

    def compute(self, q, k, v):
        """As `attend`, with shapes already checked."""
        raise TypeError(f"method '{self.name}' has no compute()")  # not NotImplementedError: that would read as a refused case

    def require(self, size: float, what: str) -> None:
        """Refuse the case if `size` bytes are more than there is room for."""
        if size > self.room:
            raise NotImplementedError(f"{what} needs {size / 2**30:.3g} GiB, {self.room / 2**30:.3g} GiB are free")

    def softmax_flops(self, phase: str, case: Case | None, entries: float, again: bool = False) -> Flops:
        """FLOPs of softmax attention that computes `entries` entries of each head's score matrix.

        executed: two matmuls, 2 d per entry each; other: 5 per entry (subtract, exp, sum, divide, compare). useful: the
        n (n + 1) / 2 entries that a causal head needs; dense: all n^2. An exact method's build computes nothing.
        A case with `backward` has four more matmuls (gradients of the weights, v, q, k) and 4 more per entry; `again`: and the
        scores and their exponentials a second time, as fused kernels have it.
        """
        if phase == "build":
            return Flops(0.0)
        n, heads = case["length"], self.batch * self.heads
        backward = bool(case.args.get("backward"))
        per_entry = (12.0 if backward else 4.0) * heads * self.head_dim
        needed = n * (n + 1) / 2 if self.causal else n * n
        more = backward and again
        executed = per_entry * entries + (2.0 * heads * self.head_dim * entries if more else 0.0)
        other = (9.0 if backward else 5.0) + (3.0 if more else 0.0)
        return Flops(executed, useful=per_entry * needed, dense=per_entry * n * n, other=other * heads * entries)


def visited(n: int, query_block: int, key_block: int = 1) -> int:
    """Score entries that a blocked causal method computes: queries in blocks, each with all key blocks up to its last token."""
    total = 0
    for start in range(0, n, query_block):
        stop = min(start + query_block, n)
        total += (stop - start) * min(-(-stop // key_block) * key_block, n)
    return total


def free_host_memory() -> float:
    """Bytes of main memory that can be had without swapping."""
    import psutil

    return float(psutil.virtual_memory().available)


def draw(data: Data, length: int, stream: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q, k, v of one batch, float32 [batch, heads, length, head_dim].

    gaussian: standard normal, q and k times `scale`, so that logits have the standard deviation scale^2 (length of keys:
    long vectors are the hard case of random features). peaked: q times `sharpness`, which is the logits' deviation: at 24
    a query has 1.3 effective keys (1 / sum of squared weights) of 2,048, and exp of a raw logit overflows float32.
    """
    args = data.args
    rng = np.random.default_rng(stream)
    shape = (args["batch"], args["heads"], length, args["head_dim"])
    q, k, v = (rng.standard_normal(shape, dtype=np.float32) for _ in range(3))
    if data.name == "peaked":
        q *= np.float32(args["sharpness"])
    else:
        q *= np.float32(args["scale"])
        k *= np.float32(args["scale"])
    return q, k, v


def cast(array: Any, dtype: str) -> Any:
    """A framework's array in the run's dtype. Exact after `representable`."""
    if str(array.dtype).removeprefix("torch.") == dtype:
        return array
    return array.astype(dtype) if hasattr(array, "astype") else array.to(getattr(sys.modules["torch"], dtype))


class AttentionForward(Task):
    """Exactness and cost of one layer's attention over the length. Relative error is taken per head to float64."""

    name = "attention-forward"
    version = 1
    title = "Self-attention, forward"
    interface = Attention
    phases = ("build", "serve")
    data = (
        Data("gaussian", {"heads": 8, "head_dim": 64, "batch": 1, "causal": False, "scale": 1.0}),
        Data("peaked", {"heads": 8, "head_dim": 64, "batch": 1, "causal": False, "sharpness": 24.0}),
    )
    cases = (
        Case("n-64", {"length": 64}, ("smoke",)),
        Case("n-128", {"length": 128}, ("smoke",)),
        Case("n-256", {"length": 256}, ("smoke", "quick", "full")),
        Case("n-512", {"length": 512}, ("quick", "full")),
        Case("n-1024", {"length": 1024}, ("quick", "full")),
        Case("n-2048", {"length": 2048}, ("quick", "full")),
        Case("n-4096", {"length": 4096}, ("full",)),
        Case("n-8192", {"length": 8192}, ("full",)),
        Case("n-16384", {"length": 16384}, ("full",)),
        Case("n-32768", {"length": 32768}, ("full",)),
        Case("n-65536", {"length": 65536}, ("full",)),
    )
    metrics = {"relative-error": Metric("1", "lower", "head")}
    baselines = ("sdpa", "naive")
    objective = "relative-error"

    def given(self, data, size, seed, prepared) -> Given:
        args = data.args
        wrong = [name for name in ("heads", "head_dim", "batch") if args[name] < 1]
        if wrong:
            raise ValueError(f"{data}: {', '.join(wrong)} must be at least 1")
        calibration = draw(data, CALIBRATION[size], (seed, 0))
        return Given(args["heads"], args["head_dim"], args["batch"], bool(args["causal"]), calibration)

    def hidden(self, data, size, seed, prepared) -> Hidden:
        return Hidden(data, seed)

    def evaluate(self, method, given) -> dict[str, float]:
        inputs = [representable(x, method.run.dtype) for x in given.calibration]
        out = method.run.numpy(method.attend(*(cast(method.run.put(x), method.run.dtype) for x in inputs)))
        return {"relative-error": float(errors(inputs, out, given.causal, method.run.dtype, seed=0)[0].mean())}

    def batches(self, case, hidden, run) -> list:
        return [tuple(cast(run.put(x), run.dtype) for x in self.inputs(case, hidden, i, run.dtype)) for i in range(BATCHES)]

    def inputs(self, case, hidden, index: int, dtype: str) -> list[np.ndarray]:
        """Batch number `index` as float32 numbers that `dtype` can hold."""
        return [representable(x, dtype) for x in draw(hidden.data, case["length"], (hidden.seed, 1, case["length"], index))]

    def call(self, method, batch, case):
        return method.attend(*batch)

    def items(self, batch, output) -> int:
        return batch[0].shape[0] * batch[0].shape[2]

    def score(self, method, given, hidden, case, outputs) -> dict[str, Any]:
        if len(outputs) != BATCHES:
            raise Wrong(f"{len(outputs)} outputs for {BATCHES} batches")
        found = []
        for index, out in enumerate(outputs):
            inputs = self.inputs(case, hidden, index, method.run.dtype)
            heads, largest = errors(inputs, out, given.causal, method.run.dtype, seed=(hidden.seed, 2, index))
            limit = EXACT[method.run.dtype]
            if method.exact and heads.max() > limit:
                raise Wrong(
                    f"relative error {heads.max():.3g} in batch {index} of {case.name}; an exact method in {method.run.dtype} "
                    f"stays below {limit:g} (largest logit {largest:.3g})"
                )
            found.append(heads)
        return {"relative-error": np.concatenate(found)}

    def unfair(self, record, other) -> str:
        mine, theirs = record.get("dtype", "float32"), other.get("dtype", "float32")
        return f"one ran in {mine}, the other in {theirs}" if mine != theirs else ""


def errors(inputs, out, causal: bool, dtype: str, seed) -> tuple[np.ndarray, float]:
    """||out - exact|| / ||exact|| of each head of each sequence, flat, and the largest |logit|. Wrong for a broken contract."""
    q, k, v = inputs
    out = np.asarray(out)
    if out.shape != q.shape:
        raise Wrong(f"the output has the shape {out.shape}, not {q.shape}")
    if out.dtype.name not in {dtype, "float32"}:  # numpy has no bfloat16: it arrives widened to float32
        raise Wrong(f"the output is {out.dtype.name}, not {dtype}")
    if not np.isfinite(np.asarray(out, dtype=np.float32)).all():
        raise Wrong("the output holds NaN or infinity")
    rng = np.random.default_rng(seed)
    length, found, largest = q.shape[2], [], 0.0
    for b, h in np.ndindex(q.shape[:2]):
        rows = np.arange(length) if length <= EVERY_ROW else np.sort(rng.choice(length, SOME_ROWS, replace=False))
        truth, logit = exact_rows(q[b, h], k[b, h], v[b, h], rows, causal)
        found.append(np.linalg.norm(out[b, h, rows].astype(np.float64) - truth) / np.linalg.norm(truth))
        largest = max(largest, logit)
    return np.array(found), largest
