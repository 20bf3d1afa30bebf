"""Process pairs on a device: several contexts a side, one number each. The CPU stands in for the device: a fork is a fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.plan import benches
from effbench.plan.origins import OWN, Origin
from effbench.plan.registry import Registry
from effbench.plan.suite import parse
from effbench.run import contexts
from effbench.run.contexts import DeviceDriver, DevicePair, even, join
from effbench.run.materials import Materials
from effbench.run.pairs import SIDES, Effort, Evidence, Samples, Side
from effbench.study.compare import Times, judge_times

WORKLOADS = Path(__file__).resolve().parents[1] / "power" / "workloads"
SUITE = """
name = "power"
size = "smoke"
devices = ["cpu"]
[[run]]
task = "power"
methods = ["loop"]
[limits]
seconds = 60
"""


@pytest.fixture
def measured(monkeypatch):
    """(evidence, process ids of each context, numbers of the pairs in which was counted) of few short turns."""

    def measure(effort: Effort, **named) -> tuple[Evidence, list[set[int]], list[int]]:
        registry = Registry.read([Origin(OWN, WORKLOADS, "effbench")])
        (bench,) = benches.match(parse(SUITE), registry, registry).benches
        seen = []
        renew = DevicePair.renew

        def watched(pair):
            renew(pair)
            seen.append(pair.children)

        monkeypatch.setattr(DevicePair, "renew", watched)
        pids = []
        time = DeviceDriver.time

        def timed(driver, pair, item):
            time(driver, pair, item)
            pids.append({child.pid for child in pair.children.values()})

        monkeypatch.setattr(DeviceDriver, "time", timed)
        counted = []
        monkeypatch.setattr(DeviceDriver, "count", lambda driver, pair, item, number: counted.append(number))
        driver = DeviceDriver({side: Side(side, registry, Materials()) for side in SIDES}, effort)
        item = Evidence(bench)
        try:
            driver.measure({bench.label: item}, times=[bench.label], facts=[bench.label], **named)
        finally:
            driver.close()
        assert not item.failed
        assert driver.effort == effort, "a pair's own effort must not stay"
        return item, pids, counted

    return measure


def test_each_context_is_a_process_of_its_own_and_one_number(measured, monkeypatch):
    monkeypatch.setattr(contexts, "CONTEXTS", 3)
    item, pids, counted = measured(Effort(pairs=2, facts=1, turns=6, turn=0.001, serve=0.3))
    assert len(pids) == 6
    assert len(set.union(*pids)) == 12, "two fresh processes a context"
    for samples in item.times.values():
        assert [len(one.wall[side]) for one in samples for side in SIDES] == [3, 3, 3, 3]
    assert counted == [0], "what is counted is counted beside, in the first pair"


def test_a_benchmark_that_takes_long_gets_one_context(measured, monkeypatch):
    monkeypatch.setattr(contexts, "PATIENCE", 0.0)
    item, pids, _ = measured(Effort(pairs=1, facts=0, turns=4, turn=0.001, serve=0.1))
    assert len(pids) == 1
    assert all(len(one.wall["base"]) == 1 for samples in item.times.values() for one in samples)


def test_turns_are_shared_evenly():
    assert [even(value) for value in (0.2, 2, 2.1, 6.0)] == [2, 2, 4, 6]


def test_earlier_pairs_are_left_alone():
    def samples(*values):
        made = Samples()
        for value in values:
            made.add(dict.fromkeys(SIDES, (value, 0.0)))
        return made

    first, times = samples(9.0), {}
    times["a"] = [first, samples(1.0, 2.0, 3.0), samples(4.0)]
    join(times, {"a": 1})
    assert times["a"][0] is first
    assert [one.wall["base"] for one in times["a"]] == [[9.0], [2.0, 4.0]]


def test_contexts_of_two_speeds_are_averaged():
    """Three contexts in ten that are slower on one side are three tenths of the difference; a median would not see them."""
    base, head = [1.0] * 10, [1.0] * 7 + [1.02] * 3
    zeros = [0.0] * 10
    pairs = [Times(base, head, zeros, zeros)] * 5
    assert judge_times(pairs, effect=0.01, on_cpu=False).ratio == pytest.approx(1.006, abs=1e-4)
    assert judge_times(pairs, effect=0.01, on_cpu=True).ratio == 1.0
