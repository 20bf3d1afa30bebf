"""Cost at equal quality: known ratios are found, intervals cover them, and what cannot be said is not."""

import math

import numpy as np
import pytest

from effbench.stats.equal_quality import Comparison, Point


def front(scale=1.0, qualities=(0.5, 0.7, 0.9), width=0.0, seeds=1, rng=None):
    points = []
    for quality in qualities:
        cost, good = {}, {}
        for seed in range(seeds):
            value = scale * math.exp(4 * quality) * (1 + (rng.normal(0, width) if rng else 0))
            cost[seed], good[seed] = (value, value * (1 - 2 * width), value * (1 + 2 * width)), (quality, quality, quality)
        points.append(Point(cost, good))
    return points


def test_parallel_fronts_differ_by_their_factor():
    found = Comparison(front(0.5), front()).average()
    assert found.ratio == pytest.approx(0.5, rel=1e-6) and found.between == (0.5, 0.9)


def test_the_average_is_over_the_common_range_only():
    found = Comparison(front(0.5, (0.6, 0.8)), front(1.0, (0.7, 0.75, 0.95))).average()
    assert found.between == pytest.approx((0.7, 0.8)) and found.ratio == pytest.approx(0.5, rel=0.02)


def test_points_below_the_front_change_nothing():
    worse = [*front(0.5), Point({0: (50.0, 50.0, 50.0)}, {0: (0.6, 0.6, 0.6)})]
    assert Comparison(worse, front()).average().ratio == pytest.approx(Comparison(front(0.5), front()).average().ratio)


def test_lower_may_be_better():
    turned = [Point(p.cost, {0: (-p.quality[0][0],) * 3}) for p in front(0.25)]
    base = [Point(p.cost, {0: (-p.quality[0][0],) * 3}) for p in front()]
    assert Comparison(turned, base, ("lower", "lower")).average().ratio == pytest.approx(0.25)


def test_higher_throughput_is_a_ratio_above_one():
    turned = [Point({0: (1 / p.cost[0][0],) * 3}, p.quality) for p in front(0.25)]
    base = [Point({0: (1 / p.cost[0][0],) * 3}, p.quality) for p in front()]
    found = Comparison(turned, base, ("higher", "higher")).average().ratio
    assert found == pytest.approx(0.25)  # cost, whichever way it was measured


def test_one_point_has_no_range_but_a_place():
    both = Comparison(front(0.5), front(1.0, (0.9,)))
    assert not both.average().known and "one point" in both.average().reason
    assert both.at(0.9).ratio == pytest.approx(0.5)
    assert both.at(0.95).reason == "not reached"


def test_fronts_that_share_nothing_say_so():
    assert "share no range" in Comparison(front(1, (0.1, 0.2)), front(1, (0.5, 0.6))).average().reason


def test_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        found = Comparison(front(0.5, width=0.05, seeds=5, rng=rng), front(width=0.05, seeds=5, rng=rng)).average()
        hits += found.low <= 0.5 <= found.high
    assert hits >= 90


def test_impossible_costs_are_refused():
    with pytest.raises(ValueError, match="positive"):
        Comparison([Point({0: (0.0, 0.0, 0.0)}, {0: (0.5, 0.5, 0.5)})], front())
    with pytest.raises(ValueError, match="at least one"):
        Comparison([], front())


def test_a_place_that_is_reached_has_an_interval():
    uncertain = [Point({0: (2.0, 1.9, 2.1)}, {0: (0.9, 0.88, 0.92)})]
    found = Comparison(uncertain, [Point({0: (4.0, 3.8, 4.2)}, {0: (0.9, 0.88, 0.92)})]).at(0.9)
    assert found.sure and found.low < 0.5 < found.high and found.high / found.low < 1.3
