"""The arms of exact attention, how a test builds and asks them, and float64 to hold them against."""

import numpy as np
from effbench_implementations.attention.chunked import Chunked
from effbench_implementations.attention.naive import Naive
from effbench_implementations.attention.naive_jax import NaiveJax
from effbench_implementations.attention.sdpa import Sdpa
from effbench_implementations.attention.sdpa_jax import SdpaJax
from effbench_implementations.attention.task import Given

from effbench import Run
from effbench.backends import get

BATCH, HEADS, LENGTH, DIM = 2, 3, 37, 8
ARMS = {
    "naive": (Naive, {}),
    "sdpa": (Sdpa, {}),
    "sdpa-flash": (Sdpa, {"kernel": "flash"}),
    "sdpa-math": (Sdpa, {"kernel": "math"}),
    "chunked": (Chunked, {}),
    "chunked-odd": (Chunked, {"query_block": 5, "key_block": 7}),
    "chunked-wide": (Chunked, {"query_block": 16, "key_block": 11}),
    "naive-jax": (NaiveJax, {}),
    "sdpa-jax": (SdpaJax, {}),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def inputs(length=LENGTH, seed=0):
    return tuple(normal(BATCH, HEADS, length, DIM, seed=3 * seed + i) for i in range(3))


def built(cls, causal=False, *, heads=HEADS, dim=DIM, batch=BATCH, **settings):
    method = cls(**settings)
    method.run = Run(backend=get(cls.backend))
    given = Given(heads, dim, batch, causal, ())
    assert method.skip(given) == ""
    method.build(given, method.run)
    return method


def answer(method, q, k, v):
    return method.run.numpy(method.attend(*(method.run.put(x) for x in (q, k, v))))


def exact(q, k, v, causal):
    """Softmax attention in float64, written without any of the code under test."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    logits = np.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(q.shape[-1])
    if causal:
        logits = np.where(np.tri(q.shape[2], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhij,bhjd->bhid", weights / weights.sum(-1, keepdims=True), v)
