"""The closed form against brute force, the identities of SPEC 4 and other closed forms."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from otflow.reference import gaussian

ALPHAS = [0.01, 0.3, 1.0, 10.0, 1e4]
MEAN = np.array([0.5, -1.0, 2.0])


def covariance(dim: int = 3, seed: int = 0) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((dim, dim))
    return root @ root.T + 0.3 * np.eye(dim)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sig", [0.05, 1.0, 6.0])
def test_matches_minimisation_over_affine_maps(alpha, sig):
    """1-d: y = m + s z minimised numerically. Only values at a flat minimum are compared: 1e-10."""
    mean = 1.3

    def objective(p):
        m, s = p[0], math.exp(p[1])
        kl = 0.5 * (s * s - 1) - p[1] + 0.5 * m * m
        return (0.5 * (s - sig) ** 2 + 0.5 * (m - mean) ** 2 + alpha * kl) / (1 + alpha)

    found = optimize.minimize(objective, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    exact = gaussian([mean], [[sig * sig]], alpha)
    np.testing.assert_allclose(found.fun * (1 + alpha), exact.objective, rtol=1e-10, atol=1e-10)
    # the minimiser itself, from gradients by finite differences: 1e-5
    np.testing.assert_allclose(found.x[0], exact.mapped_mean[0], atol=1e-5)
    np.testing.assert_allclose(math.exp(found.x[1]), exact.mapped_stds[0], rtol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_formulas_of_the_specification(alpha):
    """SPEC 2.1 and 4 as written; they lose digits by cancellation, hence 1e-9 relative to J."""
    r = gaussian(MEAN, covariance(), alpha)
    s = (r.stds + np.sqrt(r.stds**2 + 4 * alpha * (1 + alpha))) / (2 * (1 + alpha))
    mu1 = MEAN / (1 + alpha)
    transport = 0.5 * np.sum((s - r.stds) ** 2) + 0.5 * np.sum((mu1 - MEAN) ** 2)
    kl = np.sum((s**2 - 1) / 2 - np.log(s)) + 0.5 * np.sum(mu1**2)
    np.testing.assert_allclose(r.mapped_stds, s, rtol=1e-13)
    np.testing.assert_allclose(r.transport, transport, rtol=1e-12)
    np.testing.assert_allclose(r.kl, kl, rtol=1e-10, atol=1e-14)
    assert r.objective == r.transport + alpha * r.kl


@pytest.mark.parametrize("alpha", ALPHAS)
def test_envelope_identity(alpha):
    """dJ/dalpha = KL; Richardson-extrapolated central differences are good to 1e-8 KL."""

    def slope(h):
        high, low = (gaussian(MEAN, covariance(), alpha + d).objective for d in (h, -h))
        return (high - low) / (2 * h)

    h = 1e-2 * alpha
    difference = (4 * slope(h / 2) - slope(h)) / 3
    kl = gaussian(MEAN, covariance(), alpha).kl
    np.testing.assert_allclose(difference, kl, rtol=1e-6, atol=1e-12)


def test_map_pushes_to_the_stated_gaussian_and_costs_the_transport():
    """Affine pieces by their action on mean and Jacobian, to rounding."""
    cov = covariance()
    r = gaussian(MEAN, cov, 2.0)
    basis = r.map(MEAN + np.vstack([np.zeros(3), np.eye(3)]))
    jacobian = (basis[1:] - basis[0]).T
    np.testing.assert_allclose(basis[0], MEAN / 3.0, atol=1e-14)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-13)  # gradient of a convex function
    moved = jacobian - np.eye(3)
    transport = 0.5 * np.trace(moved @ cov @ moved.T) + 0.5 * np.sum((basis[0] - MEAN) ** 2)
    np.testing.assert_allclose(r.transport, transport, rtol=1e-13)
    pushed = jacobian @ cov @ jacobian.T
    kl = 0.5 * (np.trace(pushed) - 3 - np.linalg.slogdet(pushed)[1] + basis[0] @ basis[0])
    np.testing.assert_allclose(r.kl, kl, rtol=1e-12)


def test_infinite_alpha_is_the_bures_map():
    cov = covariance()
    r = gaussian(MEAN, cov, math.inf)
    pushed = np.cov(r.map(r.sample(0, 10)).T)  # shape check of a small call
    assert pushed.shape == (3, 3)
    root = r.axes * r.stds @ r.axes.T
    bures = 0.5 * (MEAN @ MEAN + np.trace(cov + np.eye(3) - 2 * root))
    np.testing.assert_allclose(root @ root, cov, atol=1e-13)
    np.testing.assert_allclose(r.half_w2_squared, bures, rtol=1e-13)
    np.testing.assert_allclose(r.map(MEAN[None] + root), np.eye(3), atol=1e-13)
    assert r.objective == r.transport == pytest.approx(bures, rel=1e-13)
    assert r.kl == 0.0


def test_entropy_and_log_prob_match_scipy():
    cov = covariance()
    r = gaussian(MEAN, cov, 1.0)
    law = stats.multivariate_normal(MEAN, cov)
    x = r.sample(3, 50)
    np.testing.assert_allclose(r.log_prob(x), law.logpdf(x), rtol=1e-11)
    np.testing.assert_allclose(r.entropy, law.entropy(), rtol=1e-13)


def test_rate_constant_and_psi():
    """Closed form (1-sig)^2/4 in 1-d; in 3-d the two limits of SPEC 4 at alpha = 1e6, to 1e-4."""
    assert gaussian([0.0], [[0.09]], 1.0).rate_constant == pytest.approx(0.7**2 / 4, rel=1e-13)
    r = gaussian(MEAN, covariance(), 1e6)
    assert 1e6 * (r.half_w2_squared - r.objective) == pytest.approx(r.rate_constant, rel=1e-4)
    assert 1e12 * r.kl == pytest.approx(r.rate_constant, rel=1e-4)
    y = np.random.default_rng(0).standard_normal((6, 3))
    h, limit = 1e-5, gaussian(MEAN, covariance(), math.inf)
    gradient = [(r.psi(y + h * e) - r.psi(y - h * e)) / (2 * h) for e in np.eye(3)]
    # grad psi(y) = y - T^(-1)(y): the source point y - grad psi is mapped to y
    np.testing.assert_allclose(limit.map(y - np.array(gradient).T), y, atol=1e-8)
    many = np.random.default_rng(1).standard_normal((200_000, 3))
    values = r.psi(many)  # mean 0 within 5 standard errors: error rate 6e-7 at this fixed seed
    assert abs(values.mean()) < 5 * values.std() / math.sqrt(len(values))
    assert 0.5 * values.var() == pytest.approx(r.rate_constant, rel=0.03)


def test_single_alpha_estimator_is_second_order():
    alphas = np.array([1e2, 1e3, 1e4])
    solved = [gaussian(MEAN, covariance(), a) for a in alphas]
    error = [abs(r.transport + 2 * r.alpha * r.kl - r.half_w2_squared) for r in solved]
    slope = np.polyfit(np.log(alphas), np.log(error), 1)[0]
    assert abs(slope + 2) < 0.1


def test_samples_have_the_moments():
    """Mean and covariance of 40,000 samples within 5 standard errors: error rate < 1e-5."""
    cov = covariance()
    x = gaussian(MEAN, cov, 1.0).sample(7, 40_000)
    assert np.all(np.abs(x.mean(0) - MEAN) < 5 * np.sqrt(np.diag(cov) / 40_000))
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / 40_000)
    assert np.all(np.abs(np.cov(x.T) - cov) < 5 * error)


@pytest.mark.parametrize(
    ("mean", "cov", "alpha", "error", "words"),
    [
        pytest.param([0.0], [[1.0]], 0.0, ValueError, r"alpha: .* > 0", id="zero alpha"),
        pytest.param([0.0], [[1.0]], -1, ValueError, r"alpha: .* > 0", id="negative alpha"),
        pytest.param([0.0], [[1.0]], math.nan, ValueError, r"alpha: .* > 0", id="NaN alpha"),
        pytest.param([0.0], [[1.0]], "1", TypeError, "alpha", id="alpha a string"),
        pytest.param([0.0], [[1.0]], True, TypeError, "alpha", id="alpha a bool"),
        pytest.param(0.0, [[1.0]], 1.0, ValueError, "mean", id="scalar mean"),
        pytest.param([np.nan], [[1.0]], 1.0, ValueError, r"mean: .*finite", id="NaN mean"),
        pytest.param([0.0], [1.0], 1.0, ValueError, r"cov: .*\(1, 1\)", id="cov shape"),
        pytest.param([0.0], [["a"]], 1.0, TypeError, "cov", id="cov of strings"),
        pytest.param([0.0, 0], [[1.0, 0.5], [0, 1]], 1.0, ValueError, "symmetric", id="asymmetric"),
        pytest.param([0.0, 0], [[1.0, 2], [2, 1]], 1.0, ValueError, "definite", id="indefinite"),
        pytest.param([0.0, 0], [[1.0, 1], [1, 1]], 1.0, ValueError, "definite", id="singular"),
    ],
)
def test_bad_arguments(mean, cov, alpha, error, words):
    with pytest.raises(error, match=words):
        gaussian(mean, cov, alpha)


def test_bad_points():
    r = gaussian([0.0, 0.0], np.eye(2), 1.0)
    with pytest.raises(ValueError, match=r"x: expected shape \(any, 2\).*got \(3, 1\)"):
        r.map(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"n: .* >= 1"):
        r.sample(0, 0)
