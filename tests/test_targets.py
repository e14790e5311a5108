"""Targets against SciPy, quadrature and the moments of their own draws."""

import functools

import jax
import numpy as np
import pytest
from scipy import special, stats

from otflow.reference import Mixture1D, product
from otflow.support.precision import precision
from otflow.targets import GaussianMixture, RotatedProduct, StandardNormal

WEIGHTS = np.array([0.2, 0.5, 0.3])


def parameters(dim, seed=0):
    """Three components with full covariances, apart from each other."""
    rng = np.random.default_rng(seed)
    roots = rng.standard_normal((3, dim, dim))
    covs = roots @ roots.transpose(0, 2, 1) / dim + 0.3 * np.eye(dim)
    return WEIGHTS, 2 * rng.standard_normal((3, dim)), covs


def mixture(dim):
    return GaussianMixture(*parameters(dim))


def by_scipy(dim, y):
    weights, means, covs = parameters(dim)
    parts = [
        stats.multivariate_normal(m, c).logpdf(y).reshape(len(y))
        for m, c in zip(means, covs, strict=True)
    ]
    return special.logsumexp(np.array(parts) + np.log(weights)[:, None], axis=0)


def factors(dim):
    """Weights, means and standard deviations of two components a coordinate, all different."""
    i = np.arange(dim)
    weights = np.column_stack([0.3 + 0.05 * i, 0.7 - 0.05 * i])
    means = np.column_stack([-1.5 - 0.2 * i, 1.0 + 0.3 * i])
    return weights, means, np.column_stack([0.5 + 0.1 * i, 0.8 - 0.05 * i])


def turn(dim):
    return np.linalg.qr(np.random.default_rng(dim).standard_normal((dim, dim)))[0]


def rotated(dim):
    return RotatedProduct(*factors(dim), turn(dim))


TARGETS = {"normal": StandardNormal, "mixture": mixture, "rotated": rotated}
both = pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)


@jax.jit
def log_prob(target, y):
    return target.log_prob(y)


@functools.partial(jax.jit, static_argnames="n")
def sample(target, seed, n=10_000):
    return target.sample(jax.random.key(seed), n)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dim", [1, 2, 5])
class TestLogProb:
    """Far out too, where densities underflow; rounding only: 1e-12 relative."""

    def points(self, dim):
        rng = np.random.default_rng(1)
        return rng.standard_normal((12, dim)) * np.geomspace(0.1, 100, 12)[:, None]

    def test_normal_matches_scipy(self, dim):
        y = self.points(dim)
        expected = stats.multivariate_normal(np.zeros(dim)).logpdf(y)
        np.testing.assert_allclose(log_prob(StandardNormal(dim), y), expected, rtol=1e-12)

    def test_mixture_matches_scipy(self, dim):
        y = self.points(dim)
        np.testing.assert_allclose(log_prob(mixture(dim), y), by_scipy(dim, y), rtol=1e-12)

    def test_rotated_product_matches_scipy(self, dim):
        y = self.points(dim)
        z = (y @ turn(dim))[:, :, None]
        weights, means, stds = factors(dim)
        parts = np.log(weights) + stats.norm(means, stds).logpdf(z)
        expected = special.logsumexp(parts, axis=2).sum(axis=1)
        np.testing.assert_allclose(log_prob(rotated(dim), y), expected, rtol=1e-12)

    def test_rotated_product_is_the_density_of_the_reference(self, dim):
        y = self.points(dim)
        ones = [
            Mixture1D(*(tuple(row) for row in rows)) for rows in zip(*factors(dim), strict=True)
        ]
        exact = product(ones, turn(dim), alpha=1.0)
        found = np.asarray(log_prob(rotated(dim), y))
        np.testing.assert_allclose(found[:6], exact.log_prob(y[:6]), rtol=1e-10)


@pytest.mark.usefixtures("float64")
@both
@pytest.mark.parametrize("dim", [1, 2])
def test_density_integrates_to_one(make, dim):
    """The trapezoid rule converges geometrically for such densities: 1e-9 is left by the tails.

    No component's deviation is below 0.5, where a spacing of 0.4 leaves 1e-13.
    """
    axis = np.linspace(-14, 14, 71)
    grid = np.stack(np.meshgrid(*[axis] * dim), axis=-1).reshape(-1, dim)
    total = np.exp(log_prob(make(dim), grid)).sum() * (axis[1] - axis[0]) ** dim
    np.testing.assert_allclose(total, 1, atol=1e-9)


def moments(dim, make):
    """Exact mean and covariance."""
    if make is StandardNormal:
        return np.zeros(dim), np.eye(dim)
    if make is rotated:
        weights, means, stds = factors(dim)
        mean = (weights * means).sum(axis=1)
        variance = (weights * (means**2 + stds**2)).sum(axis=1) - mean**2
        return turn(dim) @ mean, (turn(dim) * variance) @ turn(dim).T
    weights, means, covs = parameters(dim)
    mean = weights @ means
    second = np.einsum("k,kde->de", weights, covs + means[:, :, None] * means[:, None, :])
    return mean, second - np.outer(mean, mean)


@pytest.mark.usefixtures("float64")
@both
@pytest.mark.parametrize("dim", [1, pytest.param(2, marks=pytest.mark.slow), 5])
def test_moments_of_the_draws(make, dim):
    """Within 4 standard errors: by chance 1 in 16,000 a figure, and the seed is fixed."""
    n = 10_000
    y = np.asarray(sample(make(dim), 3))
    assert y.shape == (n, dim)
    mean, cov = moments(dim, make)
    products = (y - mean)[:, :, None] * (y - mean)[:, None, :]
    error = np.abs(y.mean(axis=0) - mean)
    np.testing.assert_array_less(error, 4 * y.std(axis=0) / np.sqrt(n))
    error = np.abs(products.mean(axis=0) - cov)
    np.testing.assert_array_less(error, 4 * products.std(axis=0) / np.sqrt(n))


@pytest.mark.usefixtures("float64")
@both
def test_law_of_the_draws(make):
    """1-d Kolmogorov-Smirnov; below 0.001 by chance once in 1000, and the seed is fixed."""
    y = np.asarray(sample(make(1), 5))[:, 0]
    weights, means, covs = parameters(1)
    if make is StandardNormal:
        weights, means, covs = [1.0], np.zeros((1, 1)), np.ones((1, 1, 1))
    if make is rotated:
        (weights,), (means,), (stds,) = factors(1)
        means, covs = turn(1)[0, 0] * means[:, None], stds[:, None, None] ** 2

    def cdf(y):
        scaled = (y[:, None] - means[:, 0]) / np.sqrt(covs[:, 0, 0])
        return stats.norm.cdf(scaled) @ np.asarray(weights)

    assert stats.kstest(y, cdf).pvalue > 1e-3


@pytest.mark.usefixtures("float64")
@both
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_moments_are_exact(make, dim):
    """Those that the draws above were held against, to float64 rounding of some d^2 terms."""
    found, (mean, cov) = make(dim).moments(), moments(dim, make)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.cov, cov, rtol=1e-12, atol=1e-13)


@both
def test_draws_follow_the_key(make):
    a, b, other = (sample(make(2), seed, 4) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, other)


@both
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_follows_the_context(make, dtype):
    with precision(dtype):
        target = make(2)
        y = sample(target, 0, 4)
        assert y.dtype == log_prob(target, y).dtype == np.dtype(dtype)


@pytest.mark.usefixtures("float64")
def test_weights_are_renormalised():
    weights, means, covs = parameters(2)
    nearly = GaussianMixture(weights * (1 + 9e-7), means, covs)
    y = np.zeros((12, 2))
    np.testing.assert_allclose(log_prob(nearly, y), log_prob(mixture(2), y), rtol=1e-14)


@both
@pytest.mark.parametrize("shape", [(4, 3), (2,), (1, 4, 2)], ids=str)
def test_points_of_the_wrong_shape_are_rejected(make, shape):
    with pytest.raises(ValueError, match=r"^y: expected shape \(n, 2\); got"):
        make(2).log_prob(np.zeros(shape, np.float32))


BAD_DIMS = {
    "boolean": (True, TypeError),
    "fraction": (2.0, TypeError),
    "text": ("2", TypeError),
    "zero": (0, ValueError),
    "negative": (-1, ValueError),
}


@pytest.mark.parametrize(("dim", "error"), BAD_DIMS.values(), ids=BAD_DIMS)
def test_bad_dimensions_are_rejected(dim, error):
    with pytest.raises(error, match=r"^dim: expected an integer >= 1; got"):
        StandardNormal(dim)


def test_numpy_integers_are_dimensions():
    assert StandardNormal(np.int64(3)).dim == 3


EYES = np.stack([np.eye(2)] * 2)
MEANS = np.zeros((2, 2))
BAD_MIXTURES = {
    "weights a matrix": ("weights, means", [[0.5, 0.5]], MEANS, EYES),
    "weights too many": ("weights, means", [0.2, 0.3, 0.5], MEANS, EYES),
    "means a vector": ("weights, means", [0.5, 0.5], np.zeros(2), EYES),
    "covs of another dim": ("covs", [0.5, 0.5], MEANS, np.stack([np.eye(3)] * 2)),
    "covs one short": ("covs", [0.5, 0.5], MEANS, EYES[:1]),
    "weights nan": ("weights", [np.nan, 0.5], MEANS, EYES),
    "means infinite": ("means", [0.5, 0.5], MEANS + np.inf, EYES),
    "covs nan": ("covs", [0.5, 0.5], MEANS, EYES * np.nan),
    "weights negative": ("weights", [1.5, -0.5], MEANS, EYES),
    "weights zero": ("weights", [1.0, 0.0], MEANS, EYES),
    "weights sum to 0.9": ("weights", [0.5, 0.4], MEANS, EYES),
    "covs asymmetric": ("covs", [0.5, 0.5], MEANS, EYES + np.array([[0, 0.1], [0, 0]])),
    "covs indefinite": ("covs", [0.5, 0.5], MEANS, EYES * [[1, 0], [0, -1]]),
    "covs singular": ("covs", [0.5, 0.5], MEANS, EYES * [[1, 0], [0, 0]]),
}


@pytest.mark.parametrize(
    ("name", "weights", "means", "covs"), BAD_MIXTURES.values(), ids=BAD_MIXTURES
)
def test_bad_mixtures_are_rejected(name, weights, means, covs):
    GaussianMixture([0.5, 0.5], MEANS, EYES)
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        GaussianMixture(weights, means, covs)


ONES = np.full((2, 2), 0.5)
BAD_PRODUCTS = {
    "vectors": ("weights, means, stds", [0.5, 0.5], [0.0, 0.0], [1.0, 1.0], np.eye(2)),
    "means one short": ("weights, means, stds", ONES, np.zeros((2, 1)), ONES, np.eye(2)),
    "stds of another shape": ("weights, means, stds", ONES, ONES, np.ones((3, 2)), np.eye(2)),
    "weights negative": ("weights", [[1.5, -0.5]] * 2, ONES, ONES, np.eye(2)),
    "weights zero": ("weights", [[1.0, 0.0]] * 2, ONES, ONES, np.eye(2)),
    "weights nan": ("weights", ONES * np.nan, ONES, ONES, np.eye(2)),
    "weights sum to 0.9 in one row": ("weights", [[0.5, 0.5], [0.5, 0.4]], ONES, ONES, np.eye(2)),
    "means nan": ("means, stds", ONES, ONES * np.nan, ONES, np.eye(2)),
    "stds infinite": ("means, stds", ONES, ONES, ONES * np.inf, np.eye(2)),
    "stds zero": ("means, stds", ONES, ONES, [[1.0, 0.0]] * 2, np.eye(2)),
    "rotation of another size": ("rotation", ONES, ONES, ONES, np.eye(3)),
    "rotation a vector": ("rotation", ONES, ONES, ONES, np.ones(2)),
    "rotation sheared": ("rotation", ONES, ONES, ONES, np.array([[1.0, 1e-3], [0.0, 1.0]])),
    "rotation nan": ("rotation", ONES, ONES, ONES, np.eye(2) * np.nan),
}


@pytest.mark.parametrize(
    ("name", "weights", "means", "stds", "rotation"), BAD_PRODUCTS.values(), ids=BAD_PRODUCTS
)
def test_bad_products_are_rejected(name, weights, means, stds, rotation):
    RotatedProduct(ONES, ONES, ONES, np.eye(2))
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        RotatedProduct(weights, means, stds, rotation)


@pytest.mark.usefixtures("float64")
class TestMerged:
    """Between the Gaussian of the mixture's moments and the mixture."""

    @pytest.mark.parametrize("dim", [1, 2, 5])
    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_keeps_the_moments(self, dim, share):
        whole, found = mixture(dim).moments(), mixture(dim).merged(share).moments()
        np.testing.assert_allclose(found.mean, whole.mean, atol=1e-12)
        np.testing.assert_allclose(found.cov, whole.cov, rtol=1e-11, atol=1e-12)

    def test_ends(self):
        y = np.random.default_rng(0).standard_normal((12, 2))
        mean, cov = mixture(2).moments()
        gauss = stats.multivariate_normal(mean, cov).logpdf(y)
        np.testing.assert_allclose(log_prob(mixture(2).merged(1.0), y), gauss, rtol=1e-11)
        np.testing.assert_allclose(log_prob(mixture(2).merged(0.0), y), by_scipy(2, y), rtol=1e-11)

    def test_one_component_stays(self):
        single = GaussianMixture([1.0], [[1.0, 2.0]], [np.diag([0.5, 2.0])])
        np.testing.assert_allclose(single.merged(0.7).factors, single.factors, rtol=1e-12)

    @pytest.mark.parametrize("share", [-0.1, 1.1, np.nan])
    def test_refused(self, share):
        with pytest.raises(ValueError, match=r"^share: expected a number in \[0, 1\]"):
            mixture(2).merged(share)

    @pytest.mark.parametrize("make", [StandardNormal, rotated])
    def test_other_targets_stay(self, make):
        target = make(2)
        assert target.merged(0.5) is target


def test_merged_keeps_the_precision():
    assert mixture(2).merged(0.5).means.dtype == np.float32
