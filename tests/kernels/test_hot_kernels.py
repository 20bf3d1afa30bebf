"""Small functions that are called often, for pytest-benchmark: pip install pytest-benchmark; pytest -m kernels --benchmark-json b.json"""

import time

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")

from effbench.api import record
from effbench.measure.latency import turn
from effbench.stats import interval, null
from effbench.stats.paired import compare

pytestmark = [pytest.mark.kernels, pytest.mark.benchmark(timer=time.thread_time)]


def test_paired_verdict(benchmark):
    candidate, baseline = null.simulate(np.random.default_rng(0), processes=30)
    assert benchmark(compare, candidate, baseline).processes == 30


def test_empty_turn(benchmark):
    assert benchmark(turn, lambda batch: None, [1, 2, 3], seconds=1e-3).calls > 100


@pytest.mark.parametrize("n", [6, 1000])
def test_median_interval(benchmark, n):
    assert benchmark(interval.median, np.random.default_rng(0).standard_normal(n)).n == n


def test_reading(benchmark):
    assert benchmark(record.reading, 1.23456789, "s", low=1.2, high=1.3, n=10, how="median")["value"] == 1.23457
