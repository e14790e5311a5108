"""Means with errors, and covariances, against closed forms and NumPy by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from otflow.support.statistics import Z95, Estimate, covariance


def test_the_level_is_95_percent():
    assert stats.norm.cdf(Z95) - stats.norm.cdf(-Z95) == pytest.approx(0.95, rel=1e-14)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    """Of 4,000 intervals of 200 draws 95 % hold it, within 4 standard errors."""
    draws = np.random.default_rng(0).standard_normal((4000, 200))
    low, high = np.transpose([Estimate.of(row).interval for row in draws])
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=4 * 0.0035)


def test_few_values_say_little():
    assert Estimate.of(np.array([3.0])) == Estimate(3.0, math.inf)
    assert math.isnan(Estimate.of(np.array([])).half)
    assert Estimate.of(np.array([1.0, 3.0])) == Estimate(2.0, 1.0)


@pytest.mark.parametrize("d", [1, 3])
def test_covariances_are_matrices(d):
    x = np.random.default_rng(0).standard_normal((50, d))
    centred = x - x.mean(axis=0)
    np.testing.assert_allclose(covariance(x), centred.T @ centred / 49, rtol=1e-12)
    np.testing.assert_allclose(covariance(x, bias=True), centred.T @ centred / 50, rtol=1e-12)
