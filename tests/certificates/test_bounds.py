"""Confidence bounds: closed forms, coverage for skewed laws, and bad input."""

import math

import numpy as np
import pytest
from scipy import stats

from otflow.certificates.bounds import _hall, lower_bound, share_interval, upper_bound

VALUES = np.random.default_rng(0).chisquare(2, 60)


def test_symmetric_values_get_students_bound():
    """Skewness 0 exactly."""
    values = np.array([-3.0, -1.0, 0.0, 1.0, 3.0]) + 7
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    assert upper_bound(values, 0.975) == pytest.approx(7 + half, rel=1e-12)
    assert lower_bound(values, 0.975) == pytest.approx(7 - half, rel=1e-12)


@pytest.mark.parametrize("k", [-0.5, -0.01, 0.01, 0.5])
def test_halls_transform_is_inverted(k):
    """x -> w with w + k w^2 / 3 + k^2 w^3 / 27 + k / 6 = x, k = skewness / sqrt(n)."""
    for x in (-2.0, 0.3, 1.96):
        w = _hall(x, k)
        assert w + k * w**2 / 3 + k**2 * w**3 / 27 + k / 6 == pytest.approx(x, abs=1e-9)


def test_right_skew_widens_the_upper_bound_and_leaves_the_lower_one():
    plain = stats.t.ppf(0.975, 59) * VALUES.std(ddof=1) / math.sqrt(60)
    assert upper_bound(VALUES, 0.975) > VALUES.mean() + 1.05 * plain
    assert lower_bound(VALUES, 0.975) == pytest.approx(VALUES.mean() - plain, rel=1e-12)


@pytest.mark.parametrize(("name", "least"), [("chi2", 0.965), ("normal", 0.965)])
def test_coverage(name, least):
    """2,000 runs of 100 draws: 97.5 % is known to 0.35 %; the bound is allowed 1 % less."""
    rng, runs, truth = np.random.default_rng(1), 2000, {"chi2": 2.0, "normal": 0.0}[name]
    draw = rng.chisquare if name == "chi2" else rng.normal
    held = 0
    for _ in range(runs):
        values = draw(2, 100) if name == "chi2" else draw(size=100)
        held += upper_bound(values, 0.975) >= truth
    assert held / runs >= least
    assert held < runs  # a bound that always holds says nothing


def test_constant_and_infinite_values():
    assert upper_bound(np.full(5, 2.0), 0.975) == lower_bound(np.full(5, 2.0), 0.975) == 2.0
    assert upper_bound(np.array([1.0, np.inf, 2.0]), 0.975) == math.inf
    assert lower_bound(np.array([1.0, np.nan, 2.0]), 0.975) == -math.inf


def test_share_interval_against_the_binomial_law():
    """At its ends the observed count has probability 2.5 % on the far side."""
    low, high = share_interval(7, 50, 0.95)
    assert stats.binom.sf(6, 50, low) == pytest.approx(0.025, rel=1e-9)
    assert stats.binom.cdf(7, 50, high) == pytest.approx(0.025, rel=1e-9)
    assert share_interval(0, 50, 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))
    assert share_interval(50, 50, 0.95)[1] == 1.0


@pytest.mark.parametrize("values", [np.zeros(1), np.zeros((3, 2))], ids=["one", "matrix"])
def test_too_few_values(values):
    with pytest.raises(ValueError, match=r"^values: expected at least 2 draws"):
        upper_bound(values, 0.975)


@pytest.mark.parametrize("level", [0.5, 1.0, -1.0])
def test_level_out_of_range(level):
    with pytest.raises(ValueError, match=r"^level: expected a number in \(0.5, 1\)"):
        upper_bound(VALUES, level)
