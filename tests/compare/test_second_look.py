"""A suspicion is settled by half as many fresh pairs where these confirm it, else by all."""

from types import SimpleNamespace

import pytest

from effbench.commands.gate import Judge, look_again
from effbench.run.pairs import SIDES, Effort, Evidence, Samples
from effbench.study import compare as study

SETTING = ("call", (), ())


def samples(ratio: float) -> Samples:
    made = Samples()
    for turn in range(8):
        base = 1.0 + 0.001 * (turn % 3)
        made.add({"base": (base, base), "head": (ratio * base, ratio * base)})
    return made


def evidence(ratios) -> Evidence:
    bench = SimpleNamespace(label="a", trials=dict.fromkeys(SIDES), deterministic=True)
    wobble = (0.998, 1.001, 1.0, 1.002, 0.999)
    pairs = [samples(ratio * wobble[number % 5]) for number, ratio in enumerate(ratios)]
    return Evidence(bench, times={(SETTING, "serve.latency"): pairs})


class Scripted:
    """A driver whose fresh pairs show these ratios."""

    def __init__(self, ratios):
        self.effort, self.ratios, self.asked = Effort(), list(ratios), []

    def measure(self, wanted, *, times, facts, first):
        self.asked.append((self.effort.pairs, sorted(times), sorted(facts)))
        for label in times:
            found = wanted[label].times.setdefault((SETTING, "serve.latency"), [])
            for _ in range(self.effort.pairs):
                found += evidence([self.ratios.pop(0)]).times[SETTING, "serve.latency"]


@pytest.mark.parametrize(
    ("fresh", "asked", "verdict"),
    [
        ([1.10] * 10, [5], "SLOWER"),  # confirmed at once
        ([1.0, 1.1, 1.0, 1.2, 1.0] + [1.1] * 5, [5, 5], "SLOWER"),  # confirmed by the rest
        ([1.0] * 10, [5, 5], "UNCLEAR"),  # not confirmed
    ],
)
def test_half_of_the_fresh_pairs_first(fresh, asked, verdict):
    judge = Judge(0.02, True, {})
    first = list(judge.looks(item := evidence([1.1] * 10)))
    assert [look.suspected for look in first] == [True]
    again, driver = {"a": Evidence(item.bench)}, Scripted(fresh)
    look_again(driver, first, again, {"a"}, {"a"})
    assert [pairs for pairs, *_ in driver.asked] == asked
    assert [facts for *_, facts in driver.asked] == [["a"], []][: len(asked)], "counted once"
    assert driver.effort == Effort()
    assert judge.row(first[0], again["a"]).verdict == verdict


def test_a_benchmark_that_fails_is_not_asked_again():
    judge = Judge(0.02, True, {})
    first = list(judge.looks(item := evidence([1.1] * 10)))

    class Failing(Scripted):
        def measure(self, wanted, **asked):
            self.asked.append(self.effort.pairs)
            wanted["a"].failed[None] = {"head": ("crash", "gone")}

    driver = Failing([])
    look_again(driver, first, {"a": Evidence(item.bench)}, {"a"}, set())
    assert driver.asked == [5]


def test_looks_add_up():
    assert [study.looks(pairs) for pairs in (1, 2, 5, 10, 30)] == [(1,), (1, 2), (3, 5), (5, 10), (15, 30)]
