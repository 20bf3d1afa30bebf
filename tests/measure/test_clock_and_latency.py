"""The build clock stands still while stopped; a turn drops its first call, cycles, and costs next to nothing itself."""

import itertools
import time

import numpy as np
import pytest

from effbench.measure.clock import BuildClock
from effbench.measure.latency import SHORT, measure, turn


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_build_clock_stands_still_while_stopped():
    clock = BuildClock()
    clock.start()
    spin(0.02)
    clock.stop()
    at_rest = clock.elapsed()
    spin(0.03)
    assert clock.elapsed() == at_rest
    clock.start()
    spin(0.01)
    clock.start()  # a second start loses nothing
    clock.stop()
    clock.stop()
    assert 0.03 <= clock.elapsed() < 0.3
    assert clock.elapsed() > at_rest


def test_build_clock_tells_cpu_from_wall_time():
    clock = BuildClock()
    clock.start()
    time.sleep(0.05)
    assert clock.elapsed() >= 0.05
    assert clock.cpu() < 0.03


def test_first_call_is_dropped_and_kept_apart():
    seen = []

    def call(batch):
        seen.append(batch)
        spin(0.02 if len(seen) == 1 else 0.001)

    timed = turn(call, ["a", "b", "c"], seconds=0.02)
    assert timed.first >= 0.02
    assert np.median(timed.wall) < 0.015
    assert timed.loops == 1
    assert len(timed.wall) == timed.calls


def test_calls_cycle_through_the_batches_and_the_last_output_is_that_of_the_last_batch():
    seen = []

    def call(batch):
        seen.append(batch)
        spin(50e-6)
        return batch * 10

    timed = turn(call, [1, 2, 3], seconds=0.005, first=2)
    assert seen[:4] == [3, 1, 2, 3]
    assert all((b - a) % 3 == 1 for a, b in itertools.pairwise(seen))
    assert timed.last_output == 10 * [1, 2, 3][timed.last_index]


def test_at_least_min_calls():
    assert turn(lambda b: spin(0.002), [0], seconds=0.0, min_calls=5).calls >= 5


def test_short_calls_run_in_inner_loops():
    timed = turn(lambda b: None, [0], seconds=0.01)
    assert timed.loops > 10
    assert np.median(timed.wall) < SHORT


def test_every_call_is_waited_for():
    waited = []
    timed = turn(lambda b: b, [0, 1, 2], seconds=0.001, synchronise=waited.append)
    assert len(waited) >= timed.calls


@pytest.mark.parametrize("own", [0.0, 60e-6])
def test_the_engine_adds_less_than_a_microsecond(own):
    """Best of several turns: other programs only ever add."""
    call = (lambda b: None) if own == 0.0 else (lambda b: spin(own))
    best = min(min(turn(call, [0], seconds=0.01).wall) for _ in range(5))
    assert best - own < 1e-6


def test_a_method_that_returns_early_is_caught_by_waiting():
    """The broken variant: without synchronise the work of a promise is not in the time."""
    import threading

    def call(batch):
        done = threading.Event()
        threading.Timer(0.01, done.set).start()
        return done

    assert np.median(turn(call, [0], seconds=0.03, synchronise=lambda e: e.wait()).wall) >= 0.01
    assert np.median(turn(call, [0], seconds=0.003).wall) < 0.005


def test_measure_gives_a_reading():
    found = measure(spin, 0.001, seconds=0.05)
    assert found["unit"] == "s"
    assert found["min"] >= 0.001
    assert found["low"] <= found["value"] <= found["high"]
    assert found["n"] > 5
