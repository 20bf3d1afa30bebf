"""One benchmark for pytest-benchmark with its defaults."""

import os

import peer_work


def test_work(benchmark):
    benchmark(peer_work.make(os.environ["PEER_WORKLOAD"], int(os.environ["PEER_EXTRA"])))
