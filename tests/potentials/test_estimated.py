"""Hutchinson's Laplacian: over all directions of +-1 it is the exact one."""

import itertools

import jax
import numpy as np

from otflow.potentials import ResNetPotential
from otflow.potentials.estimated import EstimatedLaplacian

X = np.random.default_rng(0).standard_normal((4, 3))


@jax.jit
def forms(p, x=X, t=0.3):
    both = p.gradient_and_laplacian(x, t), p.gradient_and_hessian(x, t)
    return p.value(x, t), p.gradient(x, t), *both


@jax.jit
def potential():
    return ResNetPotential.create(3, 5, 2, jax.random.key(0))


def test_the_mean_over_all_directions_is_exact(float64):
    """E ee' = I holds exactly for the mean over all eight sign vectors."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    probes = np.repeat(signs[:, None], len(X), axis=1)
    *_, found, _ = forms(EstimatedLaplacian(potential(), probes))
    *_, exact, _ = forms(potential())
    np.testing.assert_allclose(found.laplacian, exact.laplacian, rtol=1e-12)
    np.testing.assert_allclose(found.gradient, exact.gradient, rtol=1e-12)


def test_one_direction_is_its_quadratic_form(float64):
    e = np.random.default_rng(1).standard_normal((1, *X.shape))
    *_, found, _ = forms(EstimatedLaplacian(potential(), e))
    H = np.asarray(forms(potential())[-1].hessian)
    expected = np.einsum("ni,nij,nj->n", e[0], H, e[0])
    np.testing.assert_allclose(found.laplacian, expected, rtol=1e-11)


def test_all_else_is_that_of_the_potential(float64):
    found, exact = EstimatedLaplacian(potential(), np.ones((1, *X.shape))), potential()
    assert (found.dim, found.floats_per_point) == (exact.dim, exact.floats_per_point)
    ours, theirs = ((value, gradient, h) for value, gradient, _, h in map(forms, (found, exact)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
