"""The Gaussian nearest to a density: exact for Gaussians, stationary for others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.training.gaussian_start import gaussian_start

MEAN = np.array([30.0, -2.0])
COV = np.array([[4.0, 0.09], [0.09, 0.01]])


def gaussian(x):
    r = x - MEAN
    return -0.5 * jnp.sum(r * (r @ jnp.linalg.inv(COV)), axis=1)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_of_a_gaussian_it_is_exact(share, float64):
    """No sampling noise is left at the optimum, so the steps end at rounding."""
    found = gaussian_start(gaussian, np.zeros(2), np.eye(2), 0, share)
    assert np.allclose(found.mean, MEAN, rtol=1e-8)
    assert np.allclose(found.factor @ found.factor.T, COV / share, rtol=1e-7)
    assert abs(found.drift) < 1e-6
    assert found.travel < 1e-6
    assert found.lost == 0


def test_of_another_density_the_residuals_vanish(float64):
    """E[grad E] = 0, E[Hess E] = Sigma^-1 under the Gaussian, for E = sum cosh x.

    E cosh(s z) = exp(s^2/2), so s^-2 = exp(s^2/2): s^2 = 0.7035 (Lambert's function).
    """
    found = gaussian_start(lambda x: -jnp.cosh(x).sum(axis=1), np.full(2, 3.0), np.eye(2), 0)
    cov = found.factor @ found.factor.T
    assert np.allclose(found.mean, 0, atol=0.03)
    assert np.allclose(cov, 0.7035 * np.eye(2), atol=0.03)
    z = jax.random.normal(jax.random.key(5), (4000, 2)) @ found.factor.T + found.mean
    hessian = jax.vmap(jax.hessian(lambda x: jnp.cosh(x).sum()))(z).mean(axis=0)
    assert np.allclose(hessian @ cov, np.eye(2), atol=0.06)


@pytest.mark.parametrize(
    ("density", "sign"),
    [
        (lambda x: 0.0 * x[:, 0] - x[:, 1] ** 2, 1),
        (lambda x: -1e6 * jnp.sum(jnp.abs(x), 1) ** 0.1, -1),
    ],
    ids=["flat", "pole"],
)
def test_it_tells_of_growth_and_shrinking_without_end(density, sign, float64):
    found = gaussian_start(density, np.zeros(2), np.eye(2), 0)
    assert sign * found.drift > 0.35
