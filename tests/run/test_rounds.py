"""What a part of a group does outside its timed turns: who may use the device when, what is scored side by side, what a failure ends."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from effbench.run.rounds import Live, Part
from effbench.run.supervisor import Lost, Refused

STEP = 0.05  # s


class FakeChild:
    """Answers like a worker; keeps when it was asked what."""

    def __init__(self, log, name, fails=None):
        self.log, self.name, self.fails, self.alive = log, name, fails or {}, True
        self.nursery, self.pid = SimpleNamespace(kill=lambda pid: None), 0

    def ask(self, op, **arguments):
        start = time.monotonic()
        time.sleep(STEP if op != "warm" else 0.0)
        self.log.append((op, self.name, start, time.monotonic()))
        if op in self.fails:
            raise self.fails[op]
        readings = {"serve.items": {"value": 1.0}} if op == "finish" else {"quality.recall": {"value": 0.5}}
        return {"readings": readings, "notes": []}


def part_of(fails=None, count=4, cores=4):
    """(Part of `count` methods with two cases each, log of what the workers were asked, what was recorded)."""
    log, recorded = [], []
    trials = [
        SimpleNamespace(
            method=f"m{i}", key=f"key-{i}", threads=1, settings=lambda: [("short", ()), ("long", ())], cases=("short", "long")
        )
        for i in range(count)
    ]
    live = [Live(trial, FakeChild(log, trial.method, (fails or {}).get(trial.method)), {}, trial.settings()) for trial in trials]
    limits = SimpleNamespace(energy=0.0)
    runner = SimpleNamespace(
        clock=time.monotonic, cores=list(range(cores)), scored=[], second=set(), progress=SimpleNamespace(phase=lambda trial, text: None),
        plan=SimpleNamespace(suite=SimpleNamespace(limits=limits)), journal=SimpleNamespace(done={}),
        _identity=lambda trial, case, knobs: (trial.method, case),
    )  # fmt: skip
    part = Part(runner, None, live, live[0])
    part.record = lambda item, setting, answer: recorded.append((item.trial.method, setting[0], answer))
    return part, log, recorded


def overlaps(spans):
    spans = sorted(spans)
    return any(start < before for (_, before), (start, _) in itertools.pairwise(spans))


def test_one_worker_at_a_time_uses_the_device_and_scores_run_side_by_side():
    part, log, recorded = part_of()
    part.finish()
    assert not overlaps([(start, end) for op, _, start, end in log if op == "finish"])
    assert overlaps([(start, end) for op, _, start, end in log if op == "score"])
    assert len(recorded) == 8 and all(set(answer["readings"]) == {"serve.items", "quality.recall"} for *_, answer in recorded)


def test_inputs_are_drawn_by_all_workers_at_once_and_the_cheapest_case_is_recorded_first():
    part, log, recorded = part_of()
    part.draw("short")
    assert overlaps([(start, end) for _, _, start, end in log]) and part.drawn["short"] < 3 * STEP
    part.drawn["long"] = 0.0
    part.finish()
    for method in ("m0", "m3"):
        assert [case for one, case, _ in recorded if one == method] == ["long", "short"]


def test_with_one_core_everything_happens_in_turn():
    part, log, recorded = part_of(cores=1)
    part.draw("short")
    part.finish()
    assert not overlaps([(start, end) for _, _, start, end in log]) and len(recorded) == 8


@pytest.mark.parametrize(("failure", "ended"), [(Refused("wrong", "two rows"), 1), (Lost("crash", "died"), 2)])
def test_what_fails_while_inputs_are_drawn_ends_its_case_or_its_trial_alone(failure, ended):
    part, _log, recorded = part_of({"m2": {"draw": failure}})
    part.draw("short")
    part.finish()
    failed = [method for method, _, answer in recorded if answer is None]
    assert failed == ["m2"] * ended


def test_a_worker_that_dies_leaves_to_a_second_one_what_it_had_measured():
    part, _log, recorded = part_of({"m2": {"score": Lost("timeout", "deadline")}})
    one, two = part.live[1], part.live[2]
    for item in (one, two):
        item.timings["short", ()] = object()
    part.drawn["short"] = 1.0  # so that "long" is scored first, and ends the worker
    part.finish()
    assert [(case, answer) for method, case, answer in recorded if method == "m2"] == [("long", None)]
    assert two.failed == {("long", ()): ("timeout", "deadline")} and two.left == {("short", ())} and not one.left

    part, _log, recorded = part_of({"m2": {"score": Lost("timeout", "deadline")}})
    part.live[2].timings["short", ()] = object()
    part.runner.second.add("key-2")  # there is no third
    part.finish()
    assert sorted(case for method, case, answer in recorded if method == "m2" and answer is None) == ["long", "short"]


def test_a_score_that_fails_costs_its_own_setting():
    part, _log, recorded = part_of({"m1": {"score": Refused("wrong", "NaN")}})
    part.finish()
    assert [(method, answer is None) for method, _, answer in recorded].count(("m1", True)) == 2
    assert part.live[1].failed[("long", ())] == ("wrong", "NaN") and not part.live[0].failed


def test_an_error_of_the_engine_is_not_lost_in_a_thread():
    part, _log, _recorded = part_of()

    def breaks(*found):
        raise ValueError("cannot write")

    part.record = breaks
    with pytest.raises(ValueError, match="cannot write"):
        part.finish()
    assert threading.active_count() < 12
