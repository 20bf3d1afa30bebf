"""Work of several workers at the same time: side by side, in order where there is one core, and ended where it must end."""

import threading
import time
from contextlib import closing

import pytest

from effbench.run.abreast import abreast


def counting(name, *steps):
    def job():
        for step in steps:
            yield name, step

    return job


def test_all_that_the_jobs_yield_arrives_and_each_keeps_its_order():
    found = list(abreast([counting(name, 1, 2, 3) for name in "abcde"], 2))
    assert sorted(found) == [(name, step) for name in "abcde" for step in (1, 2, 3)]
    for name in "abcde":
        assert [step for one, step in found if one == name] == [1, 2, 3]


def test_jobs_run_side_by_side_up_to_the_width():
    meeting = threading.Barrier(2, timeout=5)

    def job():
        yield meeting.wait()

    assert sorted(abreast([job, job], 2)) == [0, 1]


@pytest.mark.parametrize(("jobs", "width"), [(3, 1), (1, 8), (3, 0), (0, 4)])
def test_one_at_a_time_stays_in_this_thread(jobs, width):
    here = threading.get_ident()

    def job():
        yield threading.get_ident()

    assert list(abreast([job] * jobs, width)) == [here] * jobs


def test_what_a_job_raises_is_raised_and_the_others_are_stopped():
    released = threading.Event()

    def fails():
        yield 1
        raise LookupError("lost")

    def waits():
        assert released.wait(5)
        yield 2

    with pytest.raises(LookupError, match="lost"), closing(abreast([fails, waits], 2, released.set)) as found:
        list(found)
    assert released.is_set()


def test_leaving_early_stops_what_is_under_way_and_starts_nothing_more():
    released, started = threading.Event(), []

    def job(number):
        def run():
            started.append(number)
            yield number
            assert released.wait(5)

        return run

    start = time.monotonic()
    with closing(abreast([job(number) for number in range(6)], 2, released.set)) as found:
        next(found)
    assert released.is_set() and time.monotonic() - start < 4
    assert len(started) <= 2 and threading.active_count() < 8
