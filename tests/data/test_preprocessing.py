"""Standardizer and column map: maps, their inverses, their log-determinants."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from otflow.data.preprocessing import ColumnMap, Standardizer
from otflow.support.precision import precision

X = np.random.default_rng(0).normal([1.0, -20.0, 300.0], [0.1, 2.0, 50.0], size=(200, 3))


def test_columns_get_mean_zero_and_deviation_one():
    z = Standardizer.fit(X).forward(X)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-13)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-13)


def test_new_rows_use_the_fitted_columns():
    scaler = Standardizer.fit(X)
    new = X[:5] + 1.0
    np.testing.assert_allclose(scaler.forward(new), (new - X.mean(axis=0)) / X.std(axis=0))


def test_inverse_undoes_forward():
    scaler = Standardizer.fit(X)
    np.testing.assert_allclose(scaler.inverse(scaler.forward(X)), X, rtol=1e-13)


def test_log_det_is_that_of_the_jacobian():
    """Exact for an affine map, columns of the Jacobian by differences of one unit."""
    scaler = Standardizer.fit(X)
    jacobian = scaler.forward(np.eye(3)) - scaler.forward(np.zeros((3, 3)))
    np.testing.assert_allclose(scaler.log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-12)
    assert isinstance(scaler.log_det, float)


def test_identity():
    scaler = Standardizer.identity(3)
    np.testing.assert_array_equal(scaler.forward(X), X)
    np.testing.assert_array_equal(scaler.inverse(X), X)
    assert scaler.log_det == 0


@pytest.mark.parametrize("method", ["forward", "inverse"])
def test_results_are_float64(method):
    assert getattr(Standardizer.fit(X), method)(X.astype(np.float32)).dtype == np.float64


def test_integer_weights_are_repeated_rows():
    counts = np.random.default_rng(1).integers(0, 4, size=len(X))
    found = Standardizer.fit(X, 0.3 * counts)
    expected = Standardizer.fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-12)


# --- bounded columns -----------------------------------------------------------------------

LOG, LOGIT, BELOW, FREE = (2.0, None), (-1.0, 3.0), (None, 5.0), (None, None)
TAILS = (None, None, None, None, (1.5, 0.25))
BOUNDED = ColumnMap(*zip(LOG, LOGIT, BELOW, FREE, FREE, strict=True), (0.0,) * 5, TAILS)
ROWS = np.column_stack(
    [
        np.random.default_rng(1).uniform(low, high, 50)
        for low, high in ((2.001, 9.0), (-0.999, 2.999), (-9.0, 4.999), (-3.0, 3.0), (-40.0, 40.0))
    ]
)


def written_out(x):
    """The five transforms of one row, in JAX."""
    return jnp.stack(
        [
            jnp.log(x[0] - 2),
            jax.scipy.special.logit((x[1] + 1) / 4),
            -jnp.log(5 - x[2]),
            x[3],
            jnp.arcsinh((x[4] - 1.5) / 0.25),
        ]
    )


@pytest.fixture(scope="module")
def written_out_rows():
    """ROWS transformed, and the transform's Jacobian at each."""
    with precision("float64"):
        both = jax.jit(lambda x: (jax.vmap(written_out)(x), jax.vmap(jax.jacobian(written_out))(x)))
        return jax.tree.map(np.asarray, both(ROWS))


def test_the_transforms_are_log_logit_and_arcsinh(written_out_rows):
    expected, _ = written_out_rows
    np.testing.assert_allclose(BOUNDED.forward(ROWS), expected, rtol=1e-12, atol=1e-12)


def test_bounded_columns_and_back():
    np.testing.assert_allclose(BOUNDED.inverse(BOUNDED.forward(ROWS)), ROWS, rtol=1e-12)


def test_log_det_against_automatic_differentiation(written_out_rows):
    _, jacobians = written_out_rows
    expected = np.linalg.slogdet(jacobians).logabsdet
    np.testing.assert_allclose(BOUNDED.log_det(ROWS), expected, rtol=1e-11, atol=1e-11)


def test_log_det_against_finite_differences():
    """Central differences, column by column: the map is diagonal. Their error: 1e-6 relative."""
    h = 1e-6
    slopes = (BOUNDED.forward(ROWS + h) - BOUNDED.forward(ROWS - h)) / (2 * h)
    assert (slopes > 0).all()
    np.testing.assert_allclose(BOUNDED.log_det(ROWS), np.log(slopes).sum(axis=1), atol=1e-5)


def test_log_density_against_scipy():
    """A normal variable behind the log is a shifted lognormal one, behind the logit a Johnson SB;
    behind -log(5 - x) a reflected lognormal one, behind arcsinh a Johnson SU."""
    y = BOUNDED.forward(ROWS)[:, [0, 1, 2, 4]]
    ours = stats.norm.logpdf(y, 0.5, 0.8).sum(axis=1) + BOUNDED.log_det(ROWS)
    theirs = stats.lognorm.logpdf(ROWS[:, 0], 0.8, loc=2, scale=math.exp(0.5))
    theirs += stats.johnsonsb.logpdf(ROWS[:, 1], -0.5 / 0.8, 1 / 0.8, loc=-1, scale=4)
    theirs += stats.lognorm.logpdf(5 - ROWS[:, 2], 0.8, scale=math.exp(-0.5))
    theirs += stats.johnsonsu.logpdf(ROWS[:, 4], -0.5 / 0.8, 1 / 0.8, loc=1.5, scale=0.25)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_inside_is_open():
    edges = np.array([[2.0, 0, 0], [3, -1, 0], [3, 3, 0], [3, 0, 5]])
    found = BOUNDED.inside(np.hstack([edges, np.full((4, 2), 1e300)]))
    np.testing.assert_array_equal(found.sum(axis=1), [4, 4, 4, 4])
    assert BOUNDED.inside(ROWS).all()


@pytest.mark.parametrize("extreme", [-1e4, -800.0, 800.0, 1e4])
def test_the_inverse_stays_inside(extreme):
    x = BOUNDED.inverse(np.full((1, 5), extreme))
    assert BOUNDED.inside(x).all()
    assert np.isfinite(BOUNDED.log_det(x)).all()


@pytest.mark.parametrize("far", [1e3, 1e10, 1e100, 1e300])
@pytest.mark.parametrize("side", [-1, 1])
def test_tails_far_out(far, side):
    """arcsinh u = log 2u + 1 / 4u^2, its slope's logarithm -log u - 1 / 2u^2, further terms below
    1e-13: 1e-12."""
    columns = ColumnMap((None,), (None,), (0.0,), ((1.5, 0.25),))
    x = np.array([[side * far]])
    y, u = columns.forward(x), 4 * abs(side * far - 1.5)
    np.testing.assert_allclose(y, side * (math.log(2 * u) + 0.25 / u / u), rtol=1e-12)
    slope = math.log(4) - math.log(u) - 0.5 / u / u
    np.testing.assert_allclose(columns.log_det(x), slope, rtol=1e-12)
    np.testing.assert_allclose(columns.inverse(y), x, rtol=1e-12)


# --- rounded columns -----------------------------------------------------------------------

ROUNDED = ColumnMap((-0.5, None, None), (3.5, None, None), (1.0, 0.1, 0.0))


def test_noise_is_uniform_over_the_cell():
    """Kolmogorov-Smirnov on 4,000 draws of each rounded column: error rate 1e-3, fixed seed."""
    x = np.tile([[3.0, 0.3, 7.0]], (4000, 1))
    noisy = ROUNDED.dequantize(x, np.random.default_rng(0))
    np.testing.assert_array_equal(noisy[:, 2], x[:, 2])
    for j, step in enumerate((1.0, 0.1)):
        u = (noisy[:, j] - x[:, j]) / step + 0.5
        assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(noisy[:, :2], rowvar=False)[0, 1]) < 0.06  # 3.8 standard errors
    assert ROUNDED.inside(noisy).all()


def test_rounding_undoes_the_noise():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.integers(0, 4, 300), rng.integers(-50, 50, 300) / 10, np.ones(300)])
    assert np.array_equal(ROUNDED.round(ROUNDED.dequantize(x, rng)), x)  # 0.3, not 3 * 0.1


def test_rounding_stays_within_the_bounds():
    far = np.array([[-0.5, 0.0, 0.0], [3.5, 0.0, 0.0], [99.0, 0.0, 0.0], [-99.0, 0.0, 0.0]])
    assert ROUNDED.round(far)[:, 0].tolist() == [0, 3, 3, 0]
    assert not np.signbit(ROUNDED.round(far)[:, 0]).any()


def test_noise_beside_a_bound_stays_inside_it():
    """Where a step is less than the spacing of numbers, x - step / 2 is the bound itself."""
    columns = ColumnMap((2.0**53,), (None,), (1.0,))
    noisy = columns.dequantize(np.full((50, 1), 2.0**53), np.random.default_rng(0))
    assert columns.inside(noisy).all()


def test_log_cell():
    assert ROUNDED.log_cell == pytest.approx(math.log(0.1))
    assert ColumnMap.identity(2).log_cell == 0


def test_identity_column_map():
    columns = ColumnMap.identity(3)
    assert columns.is_identity
    for method in (columns.forward, columns.inverse, columns.round):
        assert np.array_equal(method(X), X)
    assert np.array_equal(columns.dequantize(X, np.random.default_rng(0)), X)
    assert np.array_equal(columns.log_det(X), np.zeros(len(X)))
    assert not ROUNDED.is_identity
    assert not BOUNDED.is_identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((0.0,), (0.0,), (0.0,)), "lower < upper"),
        (((None,), (None,), (-1.0,)), "steps >= 0"),
        (((None,), (None,), (math.inf,)), "finite"),
        (((math.nan,), (None,), (0.0,)), "finite"),
        ((("0.5",), (None,), (0.0,)), "finite"),
        (((None, None), (None,), (0.0,)), "as many"),
        (((None,), (None,), (0.0,), ((0.0, 0.0),)), "scales > 0"),
        (((None,), (None,), (0.0,), ((math.nan, 1.0),)), "finite"),
        (((None,), (None,), (0.0,), ((0, 1.0),)), "finite"),
        (((0.0,), (None,), (0.0,), ((0.0, 1.0),)), "no bounds"),
        (((None,), (None,), (0.0,), (None, None)), "as many"),
    ],
)
def test_a_column_map_is_checked(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ColumnMap(*fields)
