"""Hutchinson's Laplacian: over all directions of +-1 it is the exact one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from otflow.potentials import ResNetPotential
from otflow.potentials.estimated import EstimatedLaplacian

X = np.random.default_rng(0).standard_normal((4, 3))


def potential():
    return ResNetPotential.create(3, 5, 2, jax.random.key(0))


def test_the_mean_over_all_directions_is_exact(float64):
    """E ee' = I holds exactly for the mean over all eight sign vectors."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    probes = jnp.asarray(np.repeat(signs[:, None], len(X), axis=1))
    found = EstimatedLaplacian(potential(), probes).gradient_and_laplacian(jnp.asarray(X), 0.3)
    exact = potential().gradient_and_laplacian(jnp.asarray(X), 0.3)
    np.testing.assert_allclose(found.laplacian, exact.laplacian, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, exact.gradient, rtol=1e-12)


def test_one_direction_is_its_quadratic_form(float64):
    e = np.random.default_rng(1).standard_normal((1, *X.shape))
    found = EstimatedLaplacian(potential(), jnp.asarray(e)).laplacian(jnp.asarray(X), 0.3)
    H = potential().hessian(jnp.asarray(X), 0.3)
    np.testing.assert_allclose(found, np.einsum("ni,nij,nj->n", e[0], H, e[0]), rtol=1e-11)


def test_all_else_is_that_of_the_potential(float64):
    x = jnp.asarray(X)
    found, exact = EstimatedLaplacian(potential(), jnp.ones((1, *X.shape))), potential()
    assert (found.dim, found.floats_per_point) == (exact.dim, exact.floats_per_point)
    for method in ("value", "gradient", "hessian"):
        ours, theirs = (getattr(p, method)(x, 0.1) for p in (found, exact))
        np.testing.assert_array_equal(ours, theirs)
