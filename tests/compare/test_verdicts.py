"""The rules of a comparison on made-up measurements: quiet when nothing changed, heard when something did."""

import math

import numpy as np
import pytest

from effbench.study import compare as study
from effbench.study.compare import Row, Times, judge_counts, judge_quality, judge_times, settle, suspected

EFFECT = 0.02


def pairs(rng, *, effect=0.0, waiting=0.0, n=10, turns=8, process=0.01, noise=0.01, load=0.0):
    """n process pairs; `effect` on CPU time, `waiting` on wall time alone, `load` stretches wall time at random."""
    out = []
    for _ in range(n):

        def side(change):
            cpu = 1e-3 * np.exp(rng.normal(0, process / 2**0.5) + rng.normal(0, noise, turns)) * (1 + change)
            return cpu, cpu

        base, head = side(0.0), side(effect)
        stretch = np.exp(np.abs(rng.normal(0, load, (2, turns)))) if load else np.ones((2, turns))
        out.append(Times(base[1] * stretch[0], head[1] * stretch[1] * (1 + waiting), base[0], head[0]))
    return out


def judge(found):
    return judge_times(found, effect=EFFECT, on_cpu=True)


def decided(rng, **how):
    """The whole rule, second look included."""
    first = pairs(rng, **how)
    found = judge(first)
    return settle(first, pairs(rng, **how), judge)[0] if suspected(found, EFFECT) else found


def share(word, runs, **how):
    rng = np.random.default_rng(0)
    return sum(decided(rng, **how).verdict in word for _ in range(runs)) / runs


def test_the_second_look_keeps_false_alarms_below_one_in_a_hundred():
    assert share(("SLOWER", "FASTER"), 500, process=0.03) <= 0.01


def test_five_percent_is_found_when_processes_differ_by_two():
    assert share(("SLOWER",), 200, effect=0.05, process=0.02) >= 0.95
    assert share(("FASTER",), 200, effect=-0.05, process=0.02) >= 0.95


def test_load_moves_wall_time_and_not_the_verdict():
    assert share(("SLOWER", "FASTER"), 200, load=0.5) <= 0.01
    assert share(("SLOWER",), 100, effect=0.05, load=0.5) >= 0.95


def test_a_change_at_the_minimum_effect_is_rarely_called():
    assert share(("SLOWER",), 300, effect=EFFECT, process=0.01) <= 0.05


def test_without_the_second_look_a_noisy_machine_raises_more_alarms():
    """The broken rule: the first flag counts. The null test must tell the two apart."""
    rng = np.random.default_rng(1)
    how = {"process": 0.10, "n": 3}
    naive = [judge(pairs(rng, **how)) for _ in range(1500)]
    careful = [decided(rng, **how) for _ in range(1500)]
    alarms = [sum(found.verdict in ("SLOWER", "FASTER") for found in kind) for kind in (naive, careful)]
    assert alarms[0] > 15
    assert alarms[1] < alarms[0] / 4


def test_waiting_is_judged_on_wall_time():
    found = judge(pairs(np.random.default_rng(0), waiting=0.3))
    assert found.verdict == "SLOWER"
    assert found.how.startswith("wall time (CPU time is the same)")
    assert judge(pairs(np.random.default_rng(0), waiting=0.03)).verdict == "SAME", "below what wall time can carry"


def test_off_the_cpu_only_wall_time_counts():
    found = judge_times(pairs(np.random.default_rng(0), waiting=0.05), effect=EFFECT, on_cpu=False)
    assert (found.verdict, found.wall) == ("SLOWER", None)


def test_a_flag_that_fresh_processes_do_not_repeat_does_not_count():
    rng = np.random.default_rng(0)
    first = pairs(rng, effect=0.2)
    found, note = settle(first, pairs(rng), judge)
    assert found.verdict == "UNCLEAR"
    assert "not confirmed" in note


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([(10, 10), (12, 12)], "SAME"), ([(10, 20), (12, 24)], "WORSE"), ([(10, 5), (12, 6)], "BETTER"), ([(0, 7), (0, 9)], "WORSE"),
        ([(7, 0)], "BETTER"), ([(1000, 1001), (1000, 1001)], "SAME"), ([(10, 11), (10, 9), (10, 10)], "UNCLEAR"),
    ],
)  # fmt: skip
def test_counts(values, verdict):
    assert judge_counts(values, effect=0.005).verdict == verdict


def test_memory_below_the_floor_is_the_allocators_business():
    memory = study.judge_reading("serve.peak_memory", {}, exact=False)
    assert memory([(0, 1 << 20)] * 3).verdict == "SAME"
    assert memory([(8 << 20, 16 << 20)] * 3).verdict == "WORSE"
    assert memory([(0, 64 << 20)] * 3).verdict == "WORSE"
    assert memory([(100 << 20, 105 << 20)] * 3).verdict == "SAME", "below the minimum effect"


@pytest.mark.parametrize(
    ("values", "better", "exact", "verdict"),
    [
        ([(0.9, 0.9)] * 3, "higher", False, "SAME"), ([(0.9, 0.8), (0.91, 0.8), (0.9, 0.79)], "higher", False, "WORSE"),
        ([(2.0, 1.0), (2.1, 1.1), (2.0, 1.0)], "lower", False, "BETTER"), ([(0.9, 0.95), (0.9, 0.85), (0.9, 0.9)], "higher", False, "UNCLEAR"),
        ([(0.9, 0.88)], "higher", True, "WORSE"), ([(0.9, 0.88)], "higher", False, "UNCLEAR"), ([(0.0, 0.0)], "lower", True, "SAME"),
    ],
)  # fmt: skip
def test_quality(values, better, exact, verdict):
    assert judge_quality(values, better=better, exact=exact).verdict == verdict


def test_exit_codes():
    def row(verdict):
        return Row("b", "", "serve.latency", "s", 1.0, 1.0, math.nan, math.nan, math.nan, verdict, "")

    assert study.code([]) == 2
    assert study.code([row("SAME"), row("FASTER")]) == 0
    assert study.code([row("SAME"), row("UNCLEAR")]) == 0
    assert study.code([row("SAME"), row("UNCLEAR")], strict=True) == 3
    assert [study.code([row("UNCLEAR"), row(word)], strict=True) for word in ("SLOWER", "WORSE", "BROKEN")] == [1, 1, 1]
    assert [r.verdict for r in study.ordered([row("SAME"), row("SLOWER"), row("UNCLEAR")])] == ["SLOWER", "UNCLEAR", "SAME"]
    assert row("SAME").data()["ratio"] is None
