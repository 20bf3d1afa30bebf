"""The work of workloads/power/matmul.py and loop.py as plain functions, for tools that know nothing of effbench."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # here and not by the caller: workers of pyperf drop the environment

import numpy as np  # noqa: E402

PRODUCTS, ROWS, INNER = 100, 64, 256  # 128 KiB each: pages of their own, so that no arm has them aligned in another way
STEPS = 20_000


def make(workload, extra):
    """A function without arguments that does the named work and `extra` per cent more."""
    if workload == "matmul":
        rng = np.random.default_rng(0)
        left = rng.standard_normal((ROWS, INNER))
        right = rng.standard_normal((INNER, ROWS))
        products = PRODUCTS * (100 + extra) // 100

        def matmul():
            for _ in range(products):
                found = left @ right
            return float(found[0, 0])

        return matmul
    if workload != "loop":
        raise ValueError(f"no work called '{workload}'")
    steps = STEPS * (100 + extra) // 100

    def loop():
        total = 0
        for step in range(steps):
            total += step & 7
        return total

    return loop
