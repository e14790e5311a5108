"""log det and its barrier against NumPy, finite differences and their own promises.

Up to six matrices are one batch of six, the last repeated, and give values and slopes together, so
that there is one program a function and dimension. Dimension 7 takes the path of 3: it is slow.
"""

import functools

import jax
import numpy as np
import pytest

from otflow.potentials.packed import pack
from otflow.schemes.log_det import (
    BARRIER,
    MARGIN,
    barrier_log_det,
    log_det,
    shortfall,
    solve_packed,
)
from otflow.support.precision import precision

pytestmark = pytest.mark.usefixtures("float64")

dims = pytest.mark.parametrize("dim", [1, 2, 3, pytest.param(7, marks=pytest.mark.slow)])
FUNCTIONS = {"log_det": log_det, "barrier": barrier_log_det, "shortfall": shortfall}


def with_eigenvalues(rows, seed=0):
    """Symmetric matrices (n, d, d) with the given eigenvalues and random axes."""
    rows = np.atleast_2d(np.asarray(rows, float))
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((len(rows), rows.shape[1], rows.shape[1])))[0]
    M = (axes * rows[:, None, :]) @ axes.transpose(0, 2, 1)
    return 0.5 * (M + M.transpose(0, 2, 1))


def definite(dim, n=6):
    """Eigenvalues from 0.2 to 5: condition numbers up to 25."""
    return with_eigenvalues(np.exp(np.random.default_rng(1).uniform(-1.6, 1.6, (n, dim))))


def both_sides(dim, n=6):
    """Eigenvalues on both sides of zero and of the thresholds, none within 1e-4 of them."""
    rng = np.random.default_rng(2)
    choices = np.array([-1.3, -2e-3, 5e-4, 3e-3, 0.02, 0.7, 2.0])
    rows = rng.choice(choices, (n, dim))
    rows[:, 0] = np.resize([-0.4, 5e-4, 0.7], n)
    return with_eigenvalues(rows)


@functools.cache
def program(function):
    def total(M):
        values = function(M)
        return values.sum(), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def values_and_slopes(function, M):
    """The values, and the gradient of every one with respect to its own matrix."""
    rows = np.pad(M, ((0, max(0, 6 - len(M))), (0, 0), (0, 0)), mode="edge")
    (_, values), slopes = program(function)(rows)
    return np.asarray(values)[: len(M)], np.asarray(slopes)[: len(M)]


def values(function, M):
    return values_and_slopes(function, M)[0]


def slopes(function, M):
    return values_and_slopes(function, M)[1]


def symmetric(dim, n, seed=3):
    D = np.random.default_rng(seed).standard_normal((n, dim, dim))
    return 0.5 * (D + D.transpose(0, 2, 1))


def assert_matches_differences(function, M, step, rtol):
    """Slopes along random symmetric directions against central differences."""
    D = symmetric(M.shape[1], len(M))
    difference = (values(function, M + step * D) - values(function, M - step * D)) / (2 * step)
    found = slopes(function, M)
    slope = np.einsum("nde,nde->n", found, D)
    scale = np.abs(found).max(axis=(1, 2))
    np.testing.assert_array_less(np.abs(slope - difference), rtol * scale + 1e-8)


@dims
@pytest.mark.parametrize("function", [log_det, barrier_log_det])
class TestPositiveDefinite:
    def test_is_that_of_numpy(self, function, dim):
        M = definite(dim)
        expected = np.linalg.slogdet(M)[1]
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(values(function, M), expected, rtol=0, atol=1e-12)

    def test_gradient_is_the_inverse(self, function, dim):
        M = definite(dim)
        np.testing.assert_allclose(slopes(function, M), np.linalg.inv(M), rtol=0, atol=1e-12)

    def test_gradient_matches_differences(self, function, dim):
        """Truncation 1e-10 times a third derivative of some |M^-1|^3: 1e-6 of the slope."""
        assert_matches_differences(function, definite(dim), 1e-5, 1e-6)


@pytest.mark.parametrize("function", [log_det, barrier_log_det])
def test_gradient_is_that_of_autodiff(function):
    M = definite(3)
    expected = slopes(slogdet, M)
    np.testing.assert_allclose(slopes(function, M), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_forward_mode_has_the_same_slopes(function):
    M, D = both_sides(3), symmetric(3, 6)
    moved = jax.jit(lambda M, D: jax.jvp(function, (M,), (D,))[1])(M, D)
    expected = np.einsum("nde,nde->n", slopes(function, M), D)
    np.testing.assert_allclose(moved, expected, rtol=1e-12, atol=1e-12)


def slogdet(M):
    return jax.numpy.linalg.slogdet(M)[1]


NOT_DEFINITE = {
    "d = 1 negative": [-2.0],
    "d = 2 one negative": [-0.3, 1.0],
    "d = 2 both negative, det > 0": [-0.3, -2.0],
    "d = 3 two negative, det > 0": [-0.3, -2.0, 1.0],
    "d = 7 one negative": [-1e-3, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0],
}


@pytest.mark.parametrize("name", NOT_DEFINITE)
def test_is_minus_infinity_with_zero_gradient_where_not_positive_definite(name):
    check_not_definite(NOT_DEFINITE[name], "float64")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if "two" in name else pytest.mark.slow) for name in NOT_DEFINITE],
)
def test_is_minus_infinity_where_not_positive_definite_in_float32(name):
    check_not_definite(NOT_DEFINITE[name], "float32")


def check_not_definite(eigenvalues, dtype):
    """Beside a good matrix, which keeps its own value and gradient."""
    good = np.diag(np.arange(1.0, len(eigenvalues) + 1))
    M = np.stack([with_eigenvalues(eigenvalues)[0], good]).astype(dtype)
    with precision(dtype):
        value, slope = values_and_slopes(log_det, M)
    assert value.dtype == dtype
    assert value[0] == -np.inf
    np.testing.assert_allclose(value[1], np.linalg.slogdet(good)[1], rtol=1e-5)
    assert (slope[0] == 0).all()
    np.testing.assert_allclose(slope[1], np.linalg.inv(good), rtol=1e-5, atol=1e-6)


@dims
def test_singular_matrices_are_not_positive_definite(dim):
    value, slope = values_and_slopes(log_det, np.zeros((1, dim, dim)))
    assert value[0] == -np.inf
    assert (slope == 0).all()


@dims
def test_nan_only_where_the_matrix_has_it(dim):
    M = definite(dim, 3)
    M[1, 0, 0] = np.nan
    assert np.isnan(values(log_det, M)).tolist() == [False, True, False]


def extension(eigenvalue):
    """log above BARRIER, below its second-order Taylor polynomial there, from the definition."""
    z = (np.minimum(eigenvalue, BARRIER) - BARRIER) / BARRIER
    return np.log(np.maximum(eigenvalue, BARRIER)) + z - z**2 / 2


class TestBarrier:
    """Where some matrix of the batch is not positive definite."""

    @dims
    def test_is_the_sum_over_eigenvalues(self, dim):
        """Eigenvalues good to 1e-15, divided by BARRIER and squared: 1e-9 of the value."""
        M = both_sides(dim)
        eigenvalues = np.linalg.eigvalsh(M)
        assert (eigenvalues < 0).any()
        assert (eigenvalues > BARRIER).any()
        found = values(barrier_log_det, M)
        np.testing.assert_allclose(found, extension(eigenvalues).sum(axis=1), rtol=1e-9)

    @dims
    def test_gradient_matches_differences(self, dim):
        """Steps of 1e-6, third derivatives up to 1e9 just above BARRIER: 1e-4 of the slope."""
        assert_matches_differences(barrier_log_det, both_sides(dim), 1e-6, 1e-4)

    @pytest.mark.parametrize("lowest", [-1e4, -1.0, 0.0])
    def test_is_finite_and_falls_ever_more_steeply(self, lowest):
        M = with_eigenvalues([[lowest, 1.0], [lowest - 1, 1.0]])
        value, slope = values_and_slopes(barrier_log_det, M)
        slope = slope.trace(axis1=1, axis2=2)
        assert np.isfinite(value).all()
        assert value[1] < value[0] < np.log(BARRIER)
        assert slope[1] > slope[0] > 1 / BARRIER

    def line(self, function):
        """Values and slopes as one eigenvalue passes BARRIER; the last matrix is indefinite."""
        moving = np.linspace(0.2 * BARRIER, 1.8 * BARRIER, 401)
        M = np.zeros((402, 2, 2))
        M[:-1, 0, 0], M[-1, 0, 0], M[:, 1, 1] = moving, -1.0, 2.0
        value, slope = values_and_slopes(function, M)
        return moving, value[:-1], slope[:-1, 0, 0]

    def test_is_concave_and_continuously_differentiable_across_the_threshold(self):
        """Slopes change by at most 2 / BARRIER^2 times the spacing: no jump in value or slope."""
        moving, value, slope = self.line(barrier_log_det)
        spacing = moving[1] - moving[0]
        assert (np.diff(slope) < 0).all()
        assert np.abs(np.diff(slope)).max() < 1.01 * spacing / BARRIER**2
        midpoint = 0.5 * (slope[1:] + slope[:-1])
        np.testing.assert_allclose(np.diff(value) / spacing, midpoint, rtol=1e-3)
        assert (np.diff(value, n=2) < 0).all()

    @dims
    def test_a_matrix_counts_alike_whatever_the_rest_of_its_batch_is(self, dim):
        """Positive definite ones below BARRIER too, with or without an indefinite neighbour."""
        M = with_eigenvalues([[lowest] + [0.7] * (dim - 1) for lowest in (0.1 * BARRIER, 0.7)])
        alone = [values(barrier_log_det, M[i : i + 1])[0] for i in range(len(M))]
        beside = values(barrier_log_det, np.concatenate([M, -np.eye(dim)[None]]))[:-1]
        np.testing.assert_allclose(alone, beside, rtol=1e-9, atol=1e-12)


class TestShortfall:
    @dims
    def test_is_zero_and_flat_above_the_margin(self, dim):
        value, slope = values_and_slopes(shortfall, definite(dim))
        assert (value == 0).all()
        assert (slope == 0).all()

    @dims
    def test_is_the_sum_over_eigenvalues(self, dim):
        M = both_sides(dim)
        below = np.maximum(MARGIN - np.linalg.eigvalsh(M), 0) / MARGIN
        expected = (below**2).sum(axis=1)
        assert expected.max() > 100
        np.testing.assert_allclose(values(shortfall, M), expected, rtol=1e-10, atol=1e-12)

    @dims
    def test_gradient_matches_differences(self, dim):
        """Piecewise quadratic: central differences are exact but for rounding."""
        assert_matches_differences(shortfall, both_sides(dim), 1e-6, 1e-5)

    def test_starts_smoothly_at_the_margin(self):
        M = with_eigenvalues([[MARGIN * (1 - 1e-6), 1.0], [MARGIN * (1 + 1e-6), 1.0]])
        value, slope = values_and_slopes(shortfall, M)
        np.testing.assert_allclose(value, [1e-12, 0], atol=1e-15)
        assert np.abs(slope[0]).max() < 3e-6 / MARGIN
        assert (slope[1] == 0).all()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_values_alone_and_in_float32(function):
    M = both_sides(3)
    with precision("float32"):
        low = jax.jit(function)(M.astype(np.float32))
        assert low.dtype == np.float32
    high = values(function, M)
    # eigenvalues near 1 are good to 1e-6; the barrier and the margin divide that by 1e-3 and square
    np.testing.assert_allclose(low, high, rtol=2e-2)


@pytest.mark.parametrize("dim", [3, 20])
def test_packed_systems_are_solved_on_both_ways(dim):
    """By sweeps and by Cholesky, against NumPy; condition numbers up to 25."""
    M, b = definite(dim), np.random.default_rng(3).standard_normal((6, dim))
    found, solved = solve_packed(pack(M), b)
    np.testing.assert_allclose(found, np.linalg.slogdet(M)[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(solved, np.linalg.solve(M, b[..., None])[..., 0], rtol=1e-11)
