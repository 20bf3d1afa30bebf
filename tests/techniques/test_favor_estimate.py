"""The features of FAVOR+ and FAVOR++: the estimate is unbiased, its variance is the formula's, A* minimises it, w is drawn right.

Each oracle rejects a variant that is broken in the way it is about; several of those circulate as the real thing.
"""

import math

import numpy as np
import pytest
import torch
from effbench_implementations.attention import features

RNG = np.random.default_rng


def pair(d, square_sum, seed=0):
    """x and y of different lengths with |x + y|^2 = square_sum."""
    rng = RNG(seed)
    x, y = rng.standard_normal(d), 0.5 * rng.standard_normal(d)
    return (v * math.sqrt(square_sum / ((x + y) @ (x + y))) for v in (x, y))


def phi(x, w, a, *, square=0.5, b=None, scale=True):
    """phi of one vector without 1 / sqrt(M), as the definition says; the settings break it."""
    d = len(x)
    b = math.sqrt(1 - 4 * a) if b is None else b
    factor = (1 - 4 * a) ** (d / 4) if scale else 1.0
    return factor * np.exp(a * (w**2).sum(-1) + b * w @ x - square * x @ x)


def exponent(x, w, a, key):
    """As the code under test has it, of one vector."""
    x = torch.from_numpy(x * len(x) ** 0.25)[None, None, None]
    return features.exponents(x, torch.from_numpy(w)[None], a, key=key)[0, 0, 0].numpy()


# -- the estimate -------------------------------------------------------------------------------------------------------


def unbiased(estimate, target):
    error = estimate.std() / math.sqrt(len(estimate))
    assert abs(estimate.mean() - target) < 4 * error and error < 0.02 * target


@pytest.mark.parametrize("a", [0.0, -0.05, "optimal"])
def test_the_estimate_is_unbiased_and_its_variance_is_the_formulas(a):
    d, z = 8, 1.0
    x, y = pair(d, z)
    a = features.optimal(z, d) if a == "optimal" else a
    w = RNG(1).standard_normal((400_000, d))
    product = phi(x, w, a) * phi(y, w, a)
    target = math.exp(x @ y)
    unbiased(product, target)
    second = features.second_moment(z, x @ x, y @ y, a, d)
    assert (product**2).mean() == pytest.approx(second, rel=0.05)
    if a == 0:  # the form that the Performer paper prints
        assert second - target**2 == pytest.approx(math.exp(z) * target**2 * (1 - math.exp(-z)))
    for broken in ({"square": 1.0}, {"b": 0.8}, {"scale": False}):
        if not (a == 0 and "scale" in broken):
            with pytest.raises(AssertionError):
                unbiased(phi(x, w, a, **broken) * phi(y, w, a, **broken), target)


def test_the_code_has_the_exponents_of_the_definition():
    d, a = 8, -0.1
    x, y = pair(d, 3.0)
    w = RNG(2).standard_normal((50, d))
    norm = (1 - 4 * a) ** (d / 4)
    np.testing.assert_allclose(np.exp(exponent(y, w, a, True)) * norm, phi(y, w, a), rtol=1e-10)
    np.testing.assert_allclose(np.exp(exponent(x, w, a, False) - x @ x / 2) * norm, phi(x, w, a), rtol=1e-10)


def test_features_are_positive_and_bounded_for_negative_a():
    d, a = 4, -0.1
    for length in (0.1, 1.0, 10.0):
        x = np.full(d, length / 2)
        w = RNG(3).standard_normal((100_000, d)) * 10
        found = phi(x, w, a)
        assert (found >= 0).all()
        assert found.max() <= (1 - 4 * a) ** (d / 4) * math.exp(x @ x * (1 / (4 * abs(a)) + 0.5))


# -- A* -----------------------------------------------------------------------------------------------------------------


def is_optimal(formula):
    grid = np.linspace(-5, 0.12, 20001)
    for d in (8, 16, 64):
        for z in (0.1, 4.0, 16.0, 100.0):
            best = grid[np.argmin([features.log_second_moment(z, a, d) for a in grid])]
            assert abs(formula(z, d) - best) <= grid[1] - grid[0]


def test_the_coefficient_minimises_the_variance():
    is_optimal(features.optimal)
    with pytest.raises(AssertionError):  # a public notes repository: 1/8 and no division by d
        is_optimal(lambda z, d: (1 - 2 * z - math.sqrt((2 * z + 1) ** 2 + 8 * z)) / 8)


def test_the_coefficient_is_the_authors():
    for d in (16, 64):
        for z in (0.01, 1.0, 50.0, 1e4):
            rho = (math.sqrt((2 * z + d) ** 2 + 8 * d * z) - 2 * z - d) / (4 * z)
            assert features.optimal(z, d) == pytest.approx((1 - 1 / rho) / 8, rel=1e-6)
            assert features.optimal(z, d) < 0
    assert features.optimal(0.0, 8) == 0
    assert features.optimal(1e-12, 8) == pytest.approx(0, abs=1e-12)


def test_the_papers_gain_of_e_to_the_60():
    gain = features.log_second_moment(100, 0.0, 64) - features.log_second_moment(100, features.optimal(100, 64), 64)
    assert gain == pytest.approx(61.2, abs=0.05)


def test_the_statistic_is_the_mean_over_all_pairs():
    q, k = (torch.randn(2, 3, 11, 5, dtype=torch.float64) + i for i in range(2))
    pairs = (q[..., :, None, :] + k[..., None, :, :]).square().sum(-1).mean((-1, -2)) / 5**0.5
    torch.testing.assert_close(features.square_of_sums(q, k), pairs)


# -- w ------------------------------------------------------------------------------------------------------------------


def orthogonal_in_blocks(w):
    for head in w:
        for start in range(0, w.shape[1], w.shape[2]):
            rows = head[start : start + w.shape[2]]
            cosines = rows @ rows.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
            assert np.abs(cosines - np.eye(len(rows))).max() < 1e-10


def lengths_are_chi(w):
    stats = pytest.importorskip("scipy.stats")
    lengths = np.linalg.norm(w, axis=-1).ravel()
    assert stats.kstest(lengths, stats.chi(w.shape[-1]).cdf).pvalue > 0.01


def test_directions_are_orthogonal_and_lengths_are_those_of_normal_vectors():
    w = features.draw(RNG(0), 3, 300, 16)
    assert w.shape == (3, 300, 16)
    orthogonal_in_blocks(w)
    lengths_are_chi(w)
    assert len(np.unique(np.round(w, 12))) == w.size  # no head shares rows with another
    with pytest.raises(AssertionError):
        orthogonal_in_blocks(features.draw(RNG(0), 3, 300, 16, orthogonal=False))
    with pytest.raises(AssertionError):
        lengths_are_chi(w / np.linalg.norm(w, axis=-1, keepdims=True) * 4)


def test_orthogonal_rows_without_the_signs_of_r_are_biased():
    """What a plain QR gives: rows are orthogonal and of the right lengths, yet the estimate is not unbiased."""
    d, rng = 8, RNG(4)
    x, y = pair(d, 1.0)
    directions, _ = np.linalg.qr(rng.standard_normal((4000, d, d)))
    w = directions.swapaxes(-1, -2) * np.linalg.norm(rng.standard_normal((4000, d, d)), axis=-1, keepdims=True)
    orthogonal_in_blocks(w[:3])
    lengths_are_chi(w[:30])
    with pytest.raises(AssertionError):
        unbiased((phi(x, w, 0.0) * phi(y, w, 0.0)).mean(-1), math.exp(x @ y))


def test_orthogonal_rows_lower_the_variance():
    d, z = 8, 1.0
    x, y = pair(d, z)
    errors = {}
    for orthogonal in (True, False):
        w = features.draw(RNG(4), 20_000, d, d, orthogonal)
        estimate = (phi(x, w, 0.0) * phi(y, w, 0.0)).mean(-1)
        unbiased(estimate, math.exp(x @ y))
        errors[orthogonal] = (estimate - math.exp(x @ y)) ** 2
    spread = math.hypot(*(e.std() / math.sqrt(len(e)) for e in errors.values()))
    assert errors[False].mean() - errors[True].mean() > 2 * spread
