"""The verdict: quiet when nothing changed, heard when something did, and UNCLEAR rather than a guess."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench.stats import null
from effbench.stats.paired import VERDICTS, compare, decide

QUIET = null.Noise(process=0.004, round=0.01, load=0.2, spikes=0.02)


def arms(rng, effect, processes=10, rounds=10, noise=QUIET):
    return null.simulate(rng, effect=effect, processes=processes, rounds=rounds, noise=noise)


@pytest.mark.parametrize(("effect", "verdict"), [(0.10, "SLOWER"), (-0.10, "FASTER"), (0.0, "SAME")])
def test_clear_cases(effect, verdict):
    candidate, baseline = arms(np.random.default_rng(0), effect)
    found = compare(candidate, baseline)
    assert found.verdict == verdict
    assert found.low < 1 + effect < found.high
    assert "10 processes" in found.rule


def test_noise_gives_unclear_not_same():
    candidate, baseline = arms(np.random.default_rng(0), 0.0, processes=5, noise=null.Noise(process=0.2, round=0.3))
    assert compare(candidate, baseline).verdict == "UNCLEAR"


def test_throughput_turns_the_words_not_the_ratio():
    times, base = arms(np.random.default_rng(0), -0.10)
    found = compare(1 / times, 1 / base, better="higher")
    assert found.verdict == "FASTER"
    assert found.ratio > 1


def test_one_process_uses_blocks_and_says_so():
    candidate, baseline = arms(np.random.default_rng(0), 0.10, processes=1, rounds=60)
    found = compare(candidate, baseline)
    assert found.verdict == "SLOWER"
    assert "not covered" in found.rule


def test_one_process_with_few_rounds_is_unclear():
    found = compare([[2.0] * 5], [[1.0] * 5])
    assert found.verdict == "UNCLEAR"
    assert found.ratio == 2.0
    assert math.isnan(found.low)


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [([], []), ([[1.0]], [[1.0], [1.0]]), ([[1.0, 2.0]], [[1.0]]), ([[0.0]], [[1.0]]), ([[math.nan]], [[1.0]]), ([[]], [[]])],
)
def test_arms_that_do_not_pair_up_are_refused(candidate, baseline):
    with pytest.raises(ValueError):
        compare(candidate, baseline)


def test_interval_covers_95_percent_of_process_pairs():
    rng, hits, runs = np.random.default_rng(2), 0, 1200
    for _ in range(runs):
        found = compare(*arms(rng, 0.05, noise=null.Noise(process=0.02, round=0.02, load=0.3, spikes=0.0)))
        hits += found.low <= 1.05 <= found.high
    assert 0.93 <= hits / runs <= 0.97


def test_no_false_alarm_beyond_the_promise():
    assert null.alarm_rate(400, noise=null.Noise(process=0.02)).value <= 0.02


def test_a_true_change_of_five_percent_is_found():
    assert null.alarm_rate(200, effect=0.05, noise=null.Noise(process=0.01)).value >= 0.95


def test_pooling_rounds_as_if_independent_is_rejected_by_the_null_test():
    """The broken rule that we do not use: t over all rounds, whatever the process."""

    def pooled(candidate, baseline, *, minimum_effect):
        logs = np.log(candidate).ravel() - np.log(baseline).ravel()
        half = 1.96 * logs.std(ddof=1) / len(logs) ** 0.5
        honest = compare(candidate, baseline, minimum_effect=minimum_effect)
        return type(honest)(**{**vars(honest), "verdict": decide(logs.mean() - half, logs.mean() + half, minimum_effect)})

    noise = null.Noise(process=0.06, round=0.02, spikes=0.0)
    assert null.alarm_rate(200, noise=noise, rule=pooled, processes=5, rounds=30).value > 0.1
    assert null.alarm_rate(200, noise=noise, processes=5, rounds=30).value <= 0.05


def test_relabelled_arms_are_the_same_numbers():
    rng = np.random.default_rng(0)
    pairs = [([1.0, 2.0], [3.0, 4.0]), ([5.0], [6.0])]
    for candidate, baseline in null.relabelled(pairs, rng, 20):
        for (a, b), c, d in zip(pairs, candidate, baseline):
            assert (c, d) in ((a, b), (b, a))


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.3))
def test_verdicts_are_symmetric(low, width, effect):
    high = low + width
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    verdict = decide(low, high, effect)
    assert verdict in VERDICTS
    assert decide(-high, -low, effect) == opposite.get(verdict, verdict)
    assert decide(low, high, effect, "higher") == opposite.get(verdict, verdict)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_units_do_not_matter(scale, seed):
    candidate, baseline = arms(np.random.default_rng(seed), 0.03)
    a, b = compare(candidate, baseline), compare(candidate * scale, baseline * scale)
    assert a.verdict == b.verdict
    assert a.ratio == pytest.approx(b.ratio)
