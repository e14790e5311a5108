"""w - log(1 + w) against exact rational series, piecewise polynomials against closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest

from otflow.reference.numerics import PiecewisePolynomial, log_excess


@pytest.mark.parametrize("w", [1e-12, -1e-9, 1e-5, -1e-3, 0.03, -0.0999, 0.1])
def test_log_excess_against_rational_series(w):
    """The Taylor series in exact arithmetic; 1e-15 relative, also where log1p would cancel."""
    exact = sum(Fraction(w) ** k * (-1) ** k / k for k in range(2, 20))
    assert float(log_excess(np.array([w]))[0]) == pytest.approx(float(exact), rel=3e-15)


def test_log_excess_is_non_negative_and_matches_log1p_far_out():
    w = np.concatenate([np.linspace(-0.999, 5, 2001), [1e8]])
    assert np.all(log_excess(w) >= 0)
    np.testing.assert_allclose(log_excess(w), w - np.log1p(w), rtol=1e-10, atol=1e-16)


def test_piecewise_polynomial_calculus():
    """Quadratic pieces of s^2/2: value, derivative, antiderivative and the Taylor tails."""
    edges = np.array([-12.0, -1.0, 0.5, 12.0])
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[:-1] + edges[1:])[:, None]
    # (m + h t)^2 / 2 = (m^2 + h^2/2)/2 + m h T_1 + h^2/4 T_2
    pieces = [(middle**2 + half**2 / 2) / 2, middle * half, half**2 / 4]
    square = PiecewisePolynomial(edges, np.hstack(pieces), tail_order=2)
    s = np.linspace(-20, 20, 101)
    np.testing.assert_allclose(square(s), s**2 / 2, rtol=1e-13, atol=1e-12)
    inside = s[np.abs(s) < 9]
    np.testing.assert_allclose(square.derivative()(inside), inside, atol=1e-13)
    cubic = square.antiderivative()(inside)
    np.testing.assert_allclose(cubic, (inside**3 + 12.0**3) / 6, rtol=1e-13)
    linear = PiecewisePolynomial(edges, np.hstack(pieces), tail_order=1)
    assert float(linear(np.array([10.5]))[0]) == pytest.approx(9.5**2 / 2 + 9.5, rel=1e-13)
    assert math.isfinite(float(linear(np.array([-1e6]))[0]))
