"""Known behaviour under JAX: work that goes on after the call has returned, and compiling that takes a known time."""

import os
import time

import jax
import jax.numpy as jnp

from .task import Load

PRODUCTS = 50  # of 300 x 300: tens of milliseconds, which the runtime does on a thread of its own
TRACE_SECONDS = 0.2


def slow(x):
    matrix = jnp.full((300, 300), 1 / 300, x.dtype)
    return x + jax.lax.fori_loop(0, PRODUCTS, lambda _, product: product @ matrix, matrix)[0, 0]


class Early(Load):
    """Returns before its work is done: the first leaf of its answer is there at once, the last much later."""

    name = "early"
    backend = "jax"

    def build(self, given, run):
        if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE") != "false":
            raise ValueError("jax would take most of the device's memory at its first use")
        self.double, self.late = jax.jit(lambda x: 2 * x), jax.jit(slow)

    def answer(self, batch):
        start = time.perf_counter()
        answer = {"answer": self.double(batch), "later": [self.late(batch)]}
        returned = time.perf_counter() - start
        self.run.tally(returned=returned)
        return answer


class Waits(Early):
    """The same work, waited for by the method itself."""

    name = "waits"

    def answer(self, batch):
        return jax.block_until_ready(super().answer(batch))


class Compiles(Load):
    """Tracing takes TRACE_SECONDS: once in the build for one function, once in the first call for another."""

    name = "compiles"
    backend = "jax"

    def build(self, given, run):
        def traced(x):
            time.sleep(TRACE_SECONDS)  # runs when jax traces, and never again
            return 2 * x

        self.double = jax.jit(traced)
        jax.jit(lambda x: traced(x) + 1)(jnp.ones(3)).block_until_ready()

    def answer(self, batch):
        return {"answer": self.double(batch)}
