"""Rotated products: sums of factors, equivariance, push-forward, quasi-random points."""

import math

import numpy as np
import pytest
from scipy import stats

from otflow.reference import (
    STANDARD_MIXTURE,
    Mixture1D,
    gaussian,
    product,
    product_mixture,
    random_rotation,
    solve_1d,
)

OTHER = Mixture1D([1.0], [0.5], [2.0])
FIELDS = ["transport", "kl", "objective", "half_w2_squared", "entropy", "rate_constant"]


@pytest.mark.parametrize("alpha", [0.1, 10.0, math.inf])
def test_costs_are_sums_in_any_basis(alpha):
    factors = [STANDARD_MIXTURE, OTHER, STANDARD_MIXTURE]
    rotated = product(factors, random_rotation(3, 1), alpha=alpha)
    for field in FIELDS:
        total = sum(getattr(solve_1d(f, alpha), field) for f in factors)
        assert getattr(rotated, field) == pytest.approx(total, rel=1e-13)
    assert rotated.dim == 3
    assert rotated.factors[0] is rotated.factors[2]  # solved once


@pytest.mark.parametrize("alpha", [0.1, 10.0, math.inf])
def test_normal_factors_give_the_gaussian(alpha):
    """In a rotated basis, against the d-dimensional closed form."""
    stds, means, q = np.array([0.3, 1.0, 2.0]), np.array([1.0, -2.0, 0.5]), random_rotation(3, 2)
    factors = [Mixture1D([1.0], [m], [s]) for m, s in zip(means, stds, strict=True)]
    r = product(factors, q, alpha=alpha)
    closed = gaussian(q @ means, q * stds**2 @ q.T, alpha)
    for field in FIELDS:
        assert getattr(r, field) == pytest.approx(getattr(closed, field), rel=1e-11)
    x = closed.sample(0, 50)
    np.testing.assert_allclose(r.map(x), closed.map(x), atol=1e-11)
    np.testing.assert_allclose(r.log_prob(x), closed.log_prob(x), rtol=1e-10)
    np.testing.assert_allclose(r.psi(x), closed.psi(x), atol=1e-10)


def test_monte_carlo_costs_in_the_rotated_basis():
    """SPEC 1 on samples, log det by finite differences; 5 standard errors: error rate 6e-7."""
    alpha, dim, n = 2.0, 3, 4000
    r = product_mixture(dim, alpha, seed=4)
    x = r.sample(0, n)
    y = r.map(x)
    h = 1e-5
    columns = [(r.map(x + h * e) - r.map(x - h * e)) / (2 * h) for e in np.eye(dim)]
    log_det = np.linalg.slogdet(np.stack(columns, axis=-1))[1]
    kl = r.log_prob(x) + 0.5 * np.sum(y**2, 1) + 0.5 * dim * math.log(2 * math.pi) - log_det
    for values, exact in [
        (0.5 * np.sum((y - x) ** 2, 1), r.transport),
        (kl, r.kl),
        (-r.log_prob(x), r.entropy),
    ]:
        assert abs(values.mean() - exact) < 5 * values.std() / math.sqrt(n)


def test_limit_map_pushes_to_the_normal():
    """Every coordinate of T_inf(x) is N(0, 1), its square norm chi-square: KS at level 1e-4."""
    r = product_mixture(4, math.inf, seed=1)
    y = r.map(r.sample(5, 8000))
    assert all(stats.kstest(column, "norm").pvalue > 1e-4 for column in y.T)
    assert stats.kstest(np.sum(y**2, axis=1), "chi2", (4,)).pvalue > 1e-4


def test_envelope_and_estimator():
    """The identities of SPEC 4 survive the sum: 1e-6, and slope -2 within 0.1."""
    slope = (product_mixture(5, 1.001).objective - product_mixture(5, 0.999).objective) / 2e-3
    assert slope == pytest.approx(product_mixture(5, 1.0).kl, rel=1e-6)
    alphas = np.array([1e2, 1e3, 1e4])
    sweep = [product_mixture(5, a) for a in alphas]
    error = [abs(r.transport + 2 * r.alpha * r.kl - r.half_w2_squared) for r in sweep]
    assert abs(np.polyfit(np.log(alphas), np.log(error), 1)[0] + 2) < 0.1
    gap = 1e4 * (sweep[-1].half_w2_squared - sweep[-1].objective)
    assert gap == pytest.approx(sweep[-1].rate_constant, rel=0.01)
    assert 1e8 * sweep[-1].kl == pytest.approx(sweep[-1].rate_constant, rel=0.01)


def test_random_rotation():
    q = random_rotation(6, 3)
    np.testing.assert_allclose(q.T @ q, np.eye(6), atol=1e-14)
    assert np.linalg.det(q) == pytest.approx(1.0)
    np.testing.assert_array_equal(q, random_rotation(6, 3))
    np.testing.assert_array_equal(random_rotation(1, 0), [[1.0]])


def test_high_dimension():
    r = product_mixture(64, 10.0)
    one = solve_1d(STANDARD_MIXTURE, 10.0)
    assert r.objective == pytest.approx(64 * one.objective, rel=1e-13)
    assert r.map(r.sample(0, 100)).shape == (100, 64)


REFLECTED = np.eye(2) * [1.0, -1.0]


def test_reflections_are_orthogonal_too():
    mirrored = product(STANDARD_MIXTURE, REFLECTED, alpha=1.0, count=2)
    assert mirrored.kl == pytest.approx(2 * solve_1d(STANDARD_MIXTURE, 1.0).kl)


@pytest.mark.parametrize(
    ("factors", "options", "error", "words"),
    [
        pytest.param(STANDARD_MIXTURE, {"alpha": 1.0}, ValueError, "count", id="no count"),
        pytest.param([], {"alpha": 1.0}, ValueError, "at least 1", id="no factors"),
        pytest.param([1.0], {"alpha": 1.0}, TypeError, "densities", id="numbers"),
        pytest.param(3, {"alpha": 1.0}, TypeError, "factors", id="a number"),
        pytest.param([OTHER], {"alpha": 1.0, "count": 2}, ValueError, "count=2", id="count"),
        pytest.param([OTHER], {"alpha": 0.0}, ValueError, r"alpha: .* > 0", id="alpha"),
        pytest.param(
            [OTHER], {"alpha": 1.0, "rotation": [[2.0]]}, ValueError, "rotation", id="scaled"
        ),
        pytest.param(
            [OTHER],
            {"alpha": 1.0, "rotation": np.eye(2)},
            ValueError,
            r"rotation: .*shape",
            id="shape",
        ),
        pytest.param(
            [OTHER, OTHER],
            {"alpha": 1.0, "rotation": [[1.0, 0.1], [0.0, 1.0]]},
            ValueError,
            "within 1e-10",
            id="shear",
        ),
    ],
)
def test_bad_arguments(factors, options, error, words):
    with pytest.raises(error, match=words):
        product(factors, **options)


def test_bad_sizes():
    with pytest.raises(TypeError, match="dim"):
        product_mixture(2.5, 1.0)
    with pytest.raises(ValueError, match="dim: expected an integer >= 1"):
        random_rotation(0, 0)
    with pytest.raises(ValueError, match=r"x: .*\(any, 2\)"):
        product_mixture(2, 1.0).map(np.zeros((4, 3)))
