"""Densities known up to a constant: what is taken, the chart within JAX, the tempered target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from otflow.data.preprocessing import ColumnMap
from otflow.flow.unnormalised import LogDensity, OnLine, from_line, unnormalised

TAILS = (None, None, None, None, (0.5, 2.0))
BOUNDED = ColumnMap((None, 0.0, None, -1.0, None), (None, None, 2.0, 3.0, None), (0.0,) * 5, TAILS)


def of_point(x):
    return -0.5 * jnp.dot(x, x)


def of_points(x):
    return -0.5 * jnp.sum(x * x, axis=1)


@pytest.mark.parametrize("function", [of_point, of_points])
def test_points_and_batches_are_told_apart(function, float64):
    density = LogDensity(function, 3)
    assert density.by_point == (function is of_point)
    x = jnp.arange(6.0).reshape(2, 3)
    assert np.allclose(density(x), [-2.5, -25.0], rtol=1e-15)


@pytest.mark.parametrize(
    ("function", "error", "told"),
    [
        pytest.param(3, TypeError, "expected a function; got int", id="no function"),
        pytest.param(lambda x: x, ValueError, r"\(2,\) for shape \(2,\)", id="vector"),
        pytest.param(lambda x: x[:, :, 0], ValueError, "an error for shape", id="axes"),
        pytest.param(lambda x: "text", ValueError, "an error for shape", id="text"),
        pytest.param(lambda x: jnp.sum(x > 0), ValueError, "got int", id="counts"),
        pytest.param(lambda x: np.sum(np.asarray(x)), TypeError, "trace", id="numpy"),
        pytest.param(lambda x: x[0] if x[0] > 0 else x[1], TypeError, "trace", id="branch"),
    ],
)
def test_what_is_no_log_density_is_refused(function, error, told):
    with pytest.raises(error, match=told):
        LogDensity(function, 2)


def test_the_chart_is_the_column_maps(float64):
    y = np.random.default_rng(0).normal(0, 3, (50, 5))
    theta, log_det = jax.jit(from_line, static_argnums=0)(BOUNDED, y)
    assert np.allclose(theta, BOUNDED.inverse(y), rtol=1e-12, atol=1e-14)
    assert np.allclose(log_det, -BOUNDED.log_det(np.asarray(theta)), rtol=1e-9, atol=1e-9)
    J = jax.vmap(jax.jacfwd(lambda row: from_line(BOUNDED, row[None])[0][0]))(jnp.asarray(y))
    assert np.allclose(log_det, np.linalg.slogdet(J).logabsdet, rtol=1e-9, atol=1e-9)


def test_far_out_it_stays_strictly_between_the_bounds(float64):
    y = jnp.array([[0.0, -800.0, 800.0, 60.0, -700.0], [0.0, -30.0, -1.0, -60.0, 700.0]])
    theta, log_det = from_line(BOUNDED, y)
    assert BOUNDED.inside(np.asarray(theta)).all()
    assert np.isfinite(log_det).all()


def test_the_target_is_the_law_in_the_gaussians_coordinates(float64):
    """theta ~ Exponential(1) by its logarithm, y = 1/2 + 2 z: the density of z in closed form."""
    columns = ColumnMap((0.0,), (None,), (0.0,))
    density = LogDensity(lambda t: -t[0] + 5.0, 1)
    target = unnormalised(OnLine(density, columns), [0.5], [[2.0]], log_constant=5.0)
    z = np.linspace(-2, 2, 9)
    y = 0.5 + 2 * z
    exact = stats.expon.logpdf(np.exp(y)) + y + np.log(2)
    assert np.allclose(target.log_prob(z[:, None]), exact, rtol=1e-12)
    assert np.allclose(target.merged(1.0).log_prob(z[:, None]), stats.norm.logpdf(z), rtol=1e-12)
    half = 0.5 * (exact + stats.norm.logpdf(z))
    assert np.allclose(target.merged(0.5).log_prob(z[:, None]), half, rtol=1e-12)


def test_it_cannot_be_sampled():
    target = unnormalised(OnLine(LogDensity(of_point, 1), ColumnMap.identity(1)), [0.0], [[1.0]])
    with pytest.raises(ValueError, match="can be sampled"):
        target.sample(jax.random.key(0), 1)
    assert target.moments() is None
