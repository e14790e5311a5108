"""The input-convex potential and bounds of its conjugate: autodiff, convexity, closed forms."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from otflow.certificates.conjugate import conjugate_bound, fenchel_gap, maximisers
from otflow.certificates.convex import KAPPA_FLOOR, ConvexPotential, start

pytestmark = pytest.mark.usefixtures("float64")
D, WIDTH = 3, 5
X = np.random.default_rng(3).standard_normal((20, D)) * 2
Y = np.random.default_rng(4).standard_normal((20, D)) * 2


class Facts(NamedTuple):
    """All that is asked of a potential at 20 points, from one compiled program."""

    kappa: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    by_autodiff: np.ndarray
    hessian: np.ndarray
    bound: np.ndarray
    gap: np.ndarray


@jax.jit
def _facts(u, x, y, candidate):
    def value(point):
        return u.value(point[None])[0]

    return Facts(
        u.kappa,
        u.value(x),
        u.gradient(x),
        jax.vmap(jax.grad(value))(x),
        jax.vmap(jax.hessian(value))(x),
        conjugate_bound(u, candidate, y),
        fenchel_gap(u, x, y, candidate),
    )


def facts(u, x=X, y=Y, candidate=X) -> Facts:
    """u at x, the bound of its conjugate at y from the candidate, the gap of the pairs."""
    return Facts(*(np.asarray(v) for v in _facts(u, x, y, candidate)))


def random_potential(seed=0, scale=1.0):
    """Every parameter random, raw ones of either sign."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((30, D)) @ rng.standard_normal((D, D))
    leaves, tree = jax.tree.flatten(start(x, x[:, ::-1].copy(), WIDTH, rng))
    leaves = [np.asarray(leaf, float) for leaf in leaves]
    return jax.tree.unflatten(
        tree, [leaf + scale * rng.standard_normal(leaf.shape) for leaf in leaves]
    )


def quadratic(curvature):
    """u = 1/2 x' M x with M = diag(curvature), the network silent."""
    zeros = jax.tree.map(np.zeros_like, random_potential())
    return dataclasses.replace(
        zeros,
        whitener=np.eye(D),
        B=np.diag(np.sqrt(np.asarray(curvature) - 0.5)),
        raw_a=np.full(WIDTH, -800.0),
        raw_q=np.full(WIDTH, -800.0),
        raw_kappa=np.log(np.expm1(0.5 - KAPPA_FLOOR)),
    )


def value_by_the_book(u: ConvexPotential, x):
    def softplus(v):
        return np.logaddexp(0, v)

    z = u.whitener @ (x - u.centre)
    pre = u.W @ z + u.c
    s = np.logaddexp(pre, -pre)
    inner = softplus(u.raw_mix) @ s + u.D @ z + u.e
    kappa = KAPPA_FLOOR + softplus(u.raw_kappa)
    return (
        0.5 * kappa * np.sum((x - u.centre) ** 2)
        + 0.5 * np.sum((u.B @ z) ** 2)
        + u.b @ z
        + softplus(u.raw_a) @ s
        + softplus(u.raw_q) @ softplus(inner)
    )


def test_value_is_the_formula():
    u = random_potential()
    np.testing.assert_allclose(facts(u).value, [value_by_the_book(u, x) for x in X], rtol=1e-12)


def test_gradient_is_that_of_automatic_differentiation():
    found = facts(random_potential())
    np.testing.assert_allclose(found.gradient, found.by_autodiff, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_strong_convexity_holds_whatever_the_parameters(seed):
    """Hessians at points far and near; only rounding may lie below kappa."""
    u = random_potential(seed, scale=2.0)
    for points in (X, 30 * Y):
        found = facts(u, points)
        least = np.linalg.eigvalsh(found.hessian).min(axis=1)
        assert found.kappa >= KAPPA_FLOOR
        assert (least >= found.kappa - 1e-9 * np.abs(found.hessian).max(axis=(1, 2))).all()


def test_start_carries_the_quadratic_and_a_direction():
    """Directions given are kept up to sign and whitening; kinks lie within the data."""
    rng = np.random.default_rng(0)
    u = start(X, Y, WIDTH, rng, np.eye(D)[:1])
    rows = np.asarray(u.W) @ np.asarray(u.whitener)
    np.testing.assert_allclose(rows / np.linalg.norm(rows, axis=1, keepdims=True), [[1, 0, 0]] * 5,
                               atol=1e-5)  # fmt: skip
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(u))


CURVATURE = np.array([0.6, 1.0, 4.0])


class TestConjugate:
    def exact(self):
        return 0.5 * np.sum(Y**2 / CURVATURE, axis=1)

    def constant(self, u):
        """u(0)."""
        return value_by_the_book(u, np.zeros(D))

    def test_quadratic_in_closed_form(self):
        """u* = 1/2 y'M^-1 y less the constants; tight at the maximiser M^-1 y."""
        u = quadratic(CURVATURE)
        found = facts(u, candidate=Y / CURVATURE)
        assert found.kappa == pytest.approx(0.5, rel=1e-12)
        np.testing.assert_allclose(
            found.bound, self.exact() - self.constant(u), rtol=1e-12, atol=1e-12
        )

    @pytest.mark.parametrize("seed", range(3))
    def test_any_candidate_gives_an_upper_bound(self, seed):
        u = quadratic(CURVATURE)
        candidate = np.random.default_rng(seed).standard_normal((20, D)) * 3
        assert (facts(u, candidate=candidate).bound > self.exact() - self.constant(u)).all()

    def test_bound_of_a_network_against_many_points(self):
        """<x, y> - u(x) at 2,000 points never exceeds the bound from a poor candidate."""
        u = random_potential()
        points = np.random.default_rng(0).standard_normal((2000, D)) * 5
        values = np.array([value_by_the_book(u, point) for point in points])
        largest = (points @ Y.T - values[:, None]).max(axis=0)
        assert (facts(u).bound >= largest).all()

    def test_maximisers_solve_grad_u_equal_y(self):
        u = random_potential()
        found = np.asarray(jax.jit(lambda u: maximisers(u, Y, X, 60, D, 1e-16))(u))
        np.testing.assert_allclose(facts(u, found).gradient, Y, atol=1e-6)

    def test_fenchel_gap_is_nonnegative_and_zero_on_the_graph(self):
        u = random_potential()
        found = facts(u)
        np.testing.assert_allclose(facts(u, y=found.gradient).gap, 0, atol=1e-11)
        assert (found.gap > 0).all()

    def test_the_better_of_candidate_and_point_is_taken(self):
        u = random_potential()
        far = facts(u, candidate=X + 100.0)
        np.testing.assert_allclose(far.gap, facts(u).gap, rtol=1e-12)
