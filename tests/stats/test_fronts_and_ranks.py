"""Fronts against brute force; ranks against their definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effbench.stats import front
from effbench.stats.rank import ranks

points = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=25)


@settings(max_examples=150, deadline=None)
@given(points, st.sampled_from(["lower", "higher"]), st.sampled_from(["lower", "higher"]))
def test_pareto_matches_brute_force(pairs, a, b):
    x, y = np.array(pairs, dtype=float).T
    sx, sy = (1 if a == "lower" else -1), (-1 if b == "lower" else 1)
    beaten = [
        any(sx * u <= sx * x[i] and sy * v >= sy * y[i] and (u, v) != (x[i], y[i]) for u, v in zip(x, y)) for i in range(len(x))
    ]
    expected = {(x[i], y[i]) for i in range(len(x)) if not beaten[i]}
    found = front.pareto(x, y, (a, b))
    assert {(x[i], y[i]) for i in found} == expected
    assert len(found) == len(expected)
    assert list(np.sign(np.diff(x[found]))) == [float(sx)] * (len(found) - 1)


def test_reading_the_front_is_linear_in_log_cost():
    cost, quality = [1.0, 100.0, 50.0], [0.5, 0.9, 0.4]  # the third is dominated
    assert front.quality_at(10.0, cost, quality) == pytest.approx(0.7)
    assert front.cost_at(0.7, cost, quality) == pytest.approx(10.0)
    assert front.quality_at(0.5, cost, quality) is None
    assert front.quality_at(1e6, cost, quality) == 0.9
    assert front.cost_at(0.95, cost, quality) is None
    assert front.cost_at(0.1, cost, quality) == 1.0


def test_throughput_and_error_have_the_other_directions():
    throughput, error = [1000.0, 10.0], [0.5, 0.1]
    better = ("higher", "lower")
    assert front.quality_at(100.0, throughput, error, better) == pytest.approx(0.3)
    assert front.cost_at(0.3, throughput, error, better) == pytest.approx(100.0)
    assert front.quality_at(2000.0, throughput, error, better) is None
    assert front.cost_at(0.05, throughput, error, better) is None


@settings(max_examples=80, deadline=None)
@given(points, st.floats(0, 20))
def test_cost_and_quality_are_inverse_on_the_front(pairs, target):
    cost, quality = np.array(pairs, dtype=float).T
    found = front.cost_at(target, cost, quality)
    if found is None:
        assert target > quality.max()
    else:
        # A hair above the cost, since exp(log(c)) may fall a bit short of c.
        assert front.quality_at(found * (1 + 1e-9), cost, quality) >= target - 1e-6


def test_costs_must_be_positive_and_finite():
    with pytest.raises(ValueError):
        front.quality_at(1.0, [0.0], [1.0])
    with pytest.raises(ValueError):
        front.pareto([math.nan], [1.0])


def test_membership_is_certain_where_nothing_overlaps_and_split_where_it_does():
    rng = np.random.default_rng(0)
    cost = [rng.normal(1, 0.01, 20), rng.normal(2, 0.01, 20), rng.normal(2, 0.01, 20), rng.normal(3, 0.01, 20)]
    quality = [[0.5], [0.8], [0.8], [0.7]]
    p = front.membership(cost, quality)
    assert p[0] == 1.0
    assert p[3] == 0.0
    assert p[1] + p[2] == pytest.approx(1.0)


def test_overlapping_intervals_share_places():
    found = [str(r) for r in ranks([1.0, 1.5, 3.0], [2.0, 2.5, 4.0])]
    assert found == ["1–2", "1–2", "3"]


def test_overlap_is_not_transitive_and_ranks_do_not_pretend():
    assert [str(r) for r in ranks([1.0, 1.9, 2.8], [2.0, 3.0, 4.0])] == ["1–2", "1–3", "2–3"]


def test_higher_is_better_mirrors():
    assert [str(r) for r in ranks([1.0, 3.0], [2.0, 4.0], "higher")] == ["2", "1"]


def test_a_missing_interval_takes_no_place_from_others():
    assert [str(r) for r in ranks([1.0, math.nan], [2.0, math.nan])] == ["1–2", "1–2"]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_place_is_possible(pairs):
    lows, highs = [a for a, _ in pairs], [a + w for a, w in pairs]
    found = ranks(lows, highs)
    assert min(r.best for r in found) == 1
    assert max(r.worst for r in found) == len(pairs)
    assert all(r.best <= r.worst for r in found)
