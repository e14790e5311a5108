"""The input-convex potential and bounds of its conjugate: autodiff, convexity, closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.certificates.conjugate import conjugate_bound, fenchel_gap, maximisers
from otflow.certificates.convex import KAPPA_FLOOR, ConvexPotential, start
from otflow.precision import cast

pytestmark = pytest.mark.usefixtures("float64")
D, WIDTH = 3, 5


def random_potential(seed=0, scale=1.0):
    """Every parameter random, raw ones of either sign."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, D)) @ rng.standard_normal((D, D))
    u = cast(start(x, x[:, ::-1].copy(), WIDTH, rng), "float64")
    leaves, tree = jax.tree.flatten(u)
    return jax.tree.unflatten(
        tree, [leaf + scale * jnp.asarray(rng.standard_normal(leaf.shape)) for leaf in leaves]
    )


def quadratic(curvature):
    """u = 1/2 x' M x with M = diag(curvature), the network silent."""
    zeros = jax.tree.map(jnp.zeros_like, random_potential())
    u = eqx.tree_at(
        lambda u: (u.whitener, u.B, u.raw_a, u.raw_q, u.raw_kappa),
        zeros,
        (
            jnp.eye(D),
            jnp.diag(jnp.sqrt(jnp.asarray(curvature) - 0.5)),
            jnp.full(WIDTH, -800.0),
            jnp.full(WIDTH, -800.0),
            jnp.log(jnp.expm1(0.5 - KAPPA_FLOOR)),
        ),
    )
    assert float(u.kappa) == pytest.approx(0.5, rel=1e-12)
    return u


X = np.random.default_rng(3).standard_normal((20, D)) * 2
Y = np.random.default_rng(4).standard_normal((20, D)) * 2


def value_by_the_book(u: ConvexPotential, x):
    def softplus(v):
        return np.logaddexp(0, np.asarray(v))

    z = np.asarray(u.whitener) @ (x - np.asarray(u.centre))
    pre = np.asarray(u.W) @ z + np.asarray(u.c)
    s = np.logaddexp(pre, -pre)
    inner = softplus(u.raw_mix) @ s + np.asarray(u.D) @ z + np.asarray(u.e)
    kappa = KAPPA_FLOOR + softplus(u.raw_kappa)
    return (
        0.5 * kappa * np.sum((x - np.asarray(u.centre)) ** 2)
        + 0.5 * np.sum((np.asarray(u.B) @ z) ** 2)
        + np.asarray(u.b) @ z
        + softplus(u.raw_a) @ s
        + softplus(u.raw_q) @ softplus(inner)
    )


def test_value_is_the_formula():
    u = random_potential()
    np.testing.assert_allclose(u.value(X), [value_by_the_book(u, x) for x in X], rtol=1e-12)


def test_gradient_is_that_of_automatic_differentiation():
    u = random_potential()
    expected = jax.vmap(jax.grad(lambda x: u.value(x[None])[0]))(jnp.asarray(X))
    np.testing.assert_allclose(u.gradient(X), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_strong_convexity_holds_whatever_the_parameters(seed):
    """Hessians at points far and near; only rounding may lie below kappa."""
    u = random_potential(seed, scale=2.0)
    points = jnp.asarray(np.concatenate([X, 30 * Y]))
    H = jax.vmap(jax.hessian(lambda x: u.value(x[None])[0]))(points)
    least = np.linalg.eigvalsh(np.asarray(H)).min(axis=1)
    assert float(u.kappa) >= KAPPA_FLOOR
    assert (least >= float(u.kappa) - 1e-9 * np.abs(H).max(axis=(1, 2))).all()


def test_start_carries_the_quadratic_and_a_direction():
    """Directions given are kept up to sign and whitening; kinks lie within the data."""
    rng = np.random.default_rng(0)
    u = start(X, Y, WIDTH, rng, np.eye(D)[:1])
    rows = np.asarray(u.W @ u.whitener)
    np.testing.assert_allclose(rows / np.linalg.norm(rows, axis=1, keepdims=True), [[1, 0, 0]] * 5,
                               atol=1e-5)  # fmt: skip
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(u))


CURVATURE = np.array([0.6, 1.0, 4.0])


class TestConjugate:
    def exact(self):
        return 0.5 * np.sum(Y**2 / CURVATURE, axis=1)

    def test_quadratic_in_closed_form(self):
        """u* = 1/2 y'M^-1 y less the constants; tight at the maximiser M^-1 y."""
        u = quadratic(CURVATURE)
        constant = float(u.value(jnp.zeros((1, D)))[0])
        got = conjugate_bound(u, jnp.asarray(Y / CURVATURE), jnp.asarray(Y))
        np.testing.assert_allclose(got, self.exact() - constant, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_any_candidate_gives_an_upper_bound(self, seed):
        u = quadratic(CURVATURE)
        constant = float(u.value(jnp.zeros((1, D)))[0])
        candidate = jnp.asarray(np.random.default_rng(seed).standard_normal((20, D)) * 3)
        got = np.asarray(conjugate_bound(u, candidate, jnp.asarray(Y)))
        assert (got > self.exact() - constant).all()

    def test_bound_of_a_network_against_many_points(self):
        """<x, y> - u(x) at 2,000 points never exceeds the bound from a poor candidate."""
        u = random_potential()
        y = jnp.asarray(Y[:5])
        points = np.random.default_rng(0).standard_normal((2000, D)) * 5
        largest = (points @ Y[:5].T - np.asarray(u.value(points))[:, None]).max(axis=0)
        assert (np.asarray(conjugate_bound(u, jnp.asarray(X[:5]), y)) >= largest).all()

    def test_maximisers_solve_grad_u_equal_y(self):
        u = random_potential()
        found = maximisers(u, jnp.asarray(Y), jnp.asarray(X), 60, D, 1e-16)
        np.testing.assert_allclose(u.gradient(found), Y, atol=1e-6)

    def test_fenchel_gap_is_nonnegative_and_zero_on_the_graph(self):
        u = random_potential()
        x = jnp.asarray(X)
        np.testing.assert_allclose(fenchel_gap(u, x, u.gradient(x), x), 0, atol=1e-11)
        assert (np.asarray(fenchel_gap(u, x, jnp.asarray(Y), x)) > 0).all()

    def test_the_better_of_candidate_and_point_is_taken(self):
        u, x, y = random_potential(), jnp.asarray(X), jnp.asarray(Y)
        far = x + 100.0
        np.testing.assert_allclose(fenchel_gap(u, x, y, far), fenchel_gap(u, x, y, x), rtol=1e-12)
