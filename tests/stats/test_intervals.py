"""Intervals cover what they promise; quantiles agree with printed tables."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench.stats import interval
from effbench.stats.distributions import beta_cdf, beta_quantile, t_quantile

# Two-sided 95 % and 99 % points of Student's t, from printed tables with more digits than usual.
TABLE = [
    (0.975, 1, 12.7062047364),
    (0.975, 2, 4.3026527297),
    (0.975, 4, 2.7764451052),
    (0.975, 9, 2.2621571628),
    (0.975, 29, 2.0452296421),
    (0.975, 100, 1.9839715184),
    (0.995, 1, 63.6567411629),
    (0.995, 4, 4.6040948713),
    (0.995, 30, 2.7499956536),
    (0.9, 5, 1.4758840488),
    (0.9995, 3, 12.9239786367),
]


@pytest.mark.parametrize(("p", "df", "expected"), TABLE)
def test_t_quantiles_match_the_tables(p, df, expected):
    assert t_quantile(p, df) == pytest.approx(expected, abs=1e-6)
    assert t_quantile(1 - p, df) == pytest.approx(-expected, abs=1e-6)


def test_t_quantile_tends_to_the_normal_one():
    assert t_quantile(0.975, 1e7) == pytest.approx(1.959964, abs=1e-5)


def test_t_quantile_of_two_degrees_has_a_closed_form():
    for p in (0.6, 0.9, 0.999, 0.999999):
        a = 2 * p - 1
        assert t_quantile(p, 2) == pytest.approx(a * math.sqrt(2 / (1 - a * a)), rel=1e-8)


@pytest.mark.parametrize("bad", [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_t_quantile_refuses_nonsense(bad):
    with pytest.raises(ValueError):
        t_quantile(*bad)


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.5, 200), st.floats(0.5, 200))
def test_beta_quantile_inverts_the_distribution(p, a, b):
    assert beta_cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, abs=1e-9)


def coverage(make, truth, draw, runs=1500):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(runs):
        found = make(draw(rng))
        hits += found.low <= truth <= found.high
    return hits / runs


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_mean_interval_covers_95_percent(n):
    assert 0.93 <= coverage(interval.mean, 2.0, lambda rng: rng.normal(2.0, 1.0, n)) <= 0.97


@pytest.mark.parametrize("n", [11, 30, 101])
def test_median_interval_covers_what_it_says_for_skewed_data(n):
    said = interval.median(np.arange(n)).level
    assert said >= 0.95
    assert coverage(interval.median, 1.0, lambda rng: rng.lognormal(0.0, 1.0, n)) == pytest.approx(said, abs=0.02)


def test_few_values_cannot_reach_95_percent_and_say_so():
    found = interval.median([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (found.low, found.high) == (1.0, 5.0)
    assert found.level == pytest.approx(1 - 2 / 32)


def test_bootstrap_covers_95_percent_of_many_items():
    make = lambda x: interval.bootstrap(x, draws=400)  # noqa: E731
    assert 0.93 <= coverage(make, 0.5, lambda rng: rng.random(80), runs=1500) <= 0.97


def test_bootstrap_over_five_processes_does_not_which_is_why_verdicts_use_t():
    make = lambda x: interval.bootstrap(x, draws=400)  # noqa: E731
    assert coverage(make, 0.0, lambda rng: rng.normal(0, 1, 5), runs=1000) < 0.90


def test_bootstrap_takes_any_statistic_and_gives_the_same_for_the_mean():
    values = np.random.default_rng(0).random(30)
    assert interval.bootstrap(values, lambda a: a.mean(), seed=1).low == pytest.approx(interval.bootstrap(values, seed=1).low)


def test_bootstrap_is_reproducible():
    assert interval.bootstrap(range(20), seed=3) == interval.bootstrap(range(20), seed=3)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.3084971), (10, 10, 0.6915029, 1.0), (5, 10, 0.1870860, 0.8129140), (1, 20, 0.0012651, 0.2487328)],
)
def test_clopper_pearson_matches_the_tables(hits, n, low, high):
    found = interval.share(hits, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_clopper_pearson_never_covers_less(p):
    n = 25
    covered = sum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if interval.share(k, n).low <= p <= interval.share(k, n).high
    )
    assert covered >= 0.95


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), st.floats(-100, 100))
def test_intervals_hold_their_estimate_and_move_with_the_data(values, shift):
    for make in (interval.mean, interval.median):
        found, moved = make(values), make([v + shift for v in values])
        assert found.low <= found.value + 1e-6 and found.value - 1e-6 <= found.high
        assert moved.low == pytest.approx(found.low + shift, abs=1e-3)


def test_one_value_has_no_interval():
    for make in (interval.mean, interval.median, interval.bootstrap):
        assert not make([1.0]).known


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_not_a_sample_is_refused(values):
    with pytest.raises(ValueError):
        interval.mean(values)


@pytest.mark.parametrize("n", [3, 10, 20])
def test_geometric_interval_covers_ratios(n):
    def make(values):
        center, low, high = interval.geometric_interval(values)
        return interval.Interval(center, low, high, n, 0.95, "")

    assert 0.93 <= coverage(make, 1.1, lambda rng: 1.1 * np.exp(rng.normal(0, 0.1, n)), runs=800) <= 0.99


def test_geometric_interval_of_one_value_and_of_nonsense():
    assert interval.geometric_interval([2.0]) == (pytest.approx(2.0), None, None)
    with pytest.raises(ValueError):
        interval.geometric_interval([1.0, 0.0])


@pytest.mark.parametrize("n", [6, 7, 10, 15, 30])
def test_interpolated_median_covers_the_level_and_not_more(n):
    assert coverage(interval.median_between, 1.0, lambda rng: rng.lognormal(0.0, 1.0, n)) == pytest.approx(0.95, abs=0.02)
    values = np.arange(n) ** 2.0
    plain, between = interval.median(values), interval.median_between(values)
    assert plain.low <= between.low <= between.value <= between.high <= plain.high
