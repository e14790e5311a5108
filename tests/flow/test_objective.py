"""The costs against closed forms, quadrature and the exact Gaussian answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.flow.objective import (
    TAIL,
    Controlled,
    Costs,
    controlled,
    costs,
    kl_terms,
    normalisers,
    variate_share,
)
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.reference import gaussian
from otflow.schemes import RK4
from otflow.targets import GaussianMixture, StandardNormal
from tests.fakes import Translation
from tests.helpers import random_resnet
from tests.training.glide import Glide

pytestmark = pytest.mark.usefixtures("float64")

LOG_2PI = np.log(2 * np.pi)


def identity_flow(dim):
    """Phi = 0."""
    shapes = jax.eval_shape(lambda: ResNetPotential.create(dim, 3, 0, jax.random.key(0)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)


@functools.partial(jax.jit, static_argnames="n_steps")
def costs_of(potential, n_steps, target, x):
    return costs(potential, RK4(n_steps), target, x)


def gauss_hermite(mean, cov, n=24):
    """Nodes (n^d, d) and weights of the expectation under N(mean, cov)."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    grid = np.stack(np.meshgrid(*[z] * mean.size, indexing="ij"), -1).reshape(-1, mean.size)
    weights = np.prod(np.meshgrid(*[w / w.sum()] * mean.size, indexing="ij"), axis=0).ravel()
    return mean + grid @ np.linalg.cholesky(cov).T, weights


SOME = Costs(jnp.array([1.0, 2.0]), jnp.array([3.0, -4.0]), jnp.array([5.0, 8.0]))
WITH_HJB = Costs(*jax.tree.leaves(SOME), hjb=jnp.array([0.5, 0.25]))


def test_objective_weighs_each_cost():
    np.testing.assert_array_equal(SOME.objective(10.0), [31.0, -38.0])
    np.testing.assert_array_equal(SOME.objective(10.0, 100.0), [531.0, 762.0])
    np.testing.assert_array_equal(WITH_HJB.objective(10.0, 100.0), [81.0, -13.0])
    np.testing.assert_array_equal(SOME.objective(jnp.array(0.0), jnp.array(0.0)), [1.0, 2.0])


def test_mean_keeps_the_costs_apart():
    mean = SOME.mean()
    assert (mean.transport, mean.nll, mean.straightness, mean.hjb) == (1.5, -0.5, 6.5, None)
    assert WITH_HJB.mean().hjb == 0.375
    assert mean.objective(2.0, 3.0) == SOME.objective(2.0, 3.0).mean() == 20.0


class TestIdentityFlow:
    def test_each_point(self):
        """Nothing moves: nll is that of the target at x, exactly."""
        x = np.random.default_rng(0).standard_normal((5, 2))
        found = costs_of(identity_flow(2), 3, StandardNormal(2), x)
        np.testing.assert_array_equal(found.transport, 0)
        np.testing.assert_array_equal(found.hjb, 0)
        np.testing.assert_allclose(found.nll, 0.5 * np.sum(x**2, axis=1) + LOG_2PI, rtol=1e-14)

    def test_expected_nll_by_quadrature(self):
        """E nll under N(1, 4): 1/2 (4 + 1) + 1/2 log 2 pi; a quadratic is integrated exactly."""
        x, w = gauss_hermite(np.array([1.0]), np.array([[4.0]]))
        found = costs_of(identity_flow(1), 2, StandardNormal(1), x)
        np.testing.assert_allclose(w @ found.nll, 2.5 + 0.5 * LOG_2PI, rtol=1e-13)

    def test_expected_nll_by_the_trapezoid_rule_for_a_mixture_target(self):
        """Cross-entropy of N(0, 1) from a mixture, densities written out here; 1e-10."""
        target = GaussianMixture([0.4, 0.6], [[-1.0], [2.0]], [[[0.5]], [[1.5]]])
        x = np.linspace(-12, 12, 4001)
        density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
        rho1 = 0.4 * np.exp(-((x + 1) ** 2)) / np.sqrt(np.pi)
        rho1 += 0.6 * np.exp(-((x - 2) ** 2) / 3) / np.sqrt(3 * np.pi)
        found = costs_of(identity_flow(1), 1, target, x[:, None])
        expected = np.trapezoid(-density * np.log(rho1), x)
        np.testing.assert_allclose(np.trapezoid(density * found.nll, x), expected, rtol=1e-10)


def test_gaussian_base_reaches_the_exact_costs():
    """E over N(mean, cov) by quadrature: transport, KL = E nll - H and J* of the reference.

    The integrands are quadratic, so what is left is RK4's log-det: 1e-9 with 64 steps.
    """
    mean, cov, alpha = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]]), 3.0
    exact = gaussian(mean, cov, alpha)
    x, w = gauss_hermite(mean, cov, 4)
    phi = GaussianBase.solve(mean, cov, alpha)
    found = costs_of(phi, 64, StandardNormal(2), x)
    np.testing.assert_allclose(w @ found.transport, exact.transport, rtol=1e-11)
    np.testing.assert_allclose(w @ found.nll - exact.entropy, exact.kl, atol=1e-8)
    objective = w @ np.asarray(found.objective(alpha)) - alpha * exact.entropy
    np.testing.assert_allclose(objective, exact.objective, atol=3e-8)
    assert np.max(found.hjb) < 1e-12


def test_costs_are_those_of_the_push():
    x = np.random.default_rng(0).standard_normal((4, 2))
    p, scheme, target = random_resnet(2), RK4(3), StandardNormal(2)
    pushed, found = jax.tree.map(
        np.asarray, jax.jit(lambda p, x: (scheme.push(p, x), costs(p, scheme, target, x)))(p, x)
    )
    np.testing.assert_allclose(found.transport, pushed.transport, rtol=1e-13)
    np.testing.assert_allclose(found.hjb, pushed.hjb, rtol=1e-13)
    bend = 2 * pushed.transport - ((pushed.points - x) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.straightness, bend, atol=1e-13)
    nll = 0.5 * np.sum(pushed.points**2, axis=1) + LOG_2PI - pushed.log_det
    np.testing.assert_allclose(found.nll, nll, rtol=1e-13)


class TestTermsOfTheKL:
    """N(0, 1) against N(mean, std^2) on a grid, by the trapezoid rule, and samples of it."""

    X = np.linspace(-12, 12, 2001)

    @staticmethod
    def log_ratio(x, mean, std):
        return np.log(std) - 0.5 * x**2 + 0.5 * ((x - mean) / std) ** 2

    def test_closed_form_and_sign(self):
        u = np.linspace(-5, 5, 1001)
        np.testing.assert_allclose(kl_terms(u), u - 1 + np.exp(-u), rtol=1e-14)
        assert (kl_terms(u) >= 0).all()
        assert kl_terms(np.zeros(1))[0] == 0

    def test_a_straight_line_below_the_tail(self):
        """Value e - 2 and slope 1 - e at -1."""
        u = -np.geomspace(1.0, 1e6, 1001)
        np.testing.assert_allclose(kl_terms(u, 1.0), (np.e - 2) + (1 - np.e) * (u + 1), rtol=1e-14)
        np.testing.assert_array_equal(kl_terms(-u, 1.0), kl_terms(-u))

    def test_the_mean_is_the_divergence(self):
        mean, std = 0.1, 0.95
        rho = np.exp(-0.5 * self.X**2) / np.sqrt(2 * np.pi)
        u = self.log_ratio(self.X, mean, std)
        exact = np.log(std) + (1 + mean**2) / (2 * std**2) - 0.5
        np.testing.assert_allclose(np.trapezoid(rho * kl_terms(u), self.X), exact, atol=1e-11)

    @pytest.mark.parametrize(("mean", "std", "share"), [(0.01, 0.99, 1e-3), (1.5, 0.6, 0.99)])
    def test_controlled_terms_have_its_mean_and_less_noise(self, mean, std, share):
        """Near and far: 5 standard errors; the variance at most `share` of the plain one."""
        x = np.random.default_rng(0).standard_normal(20_000)
        u = self.log_ratio(x, mean, std)
        found = np.asarray(controlled(jnp.asarray(u)))
        exact = np.log(std) + (1 + mean**2) / (2 * std**2) - 0.5
        assert abs(found.mean() - exact) < 5 * found.std() / np.sqrt(len(x))
        assert found.var() <= share * u.var()

    def test_one_wild_point_does_not_rule(self):
        u = np.append(np.linspace(-0.1, 0.1, 999), -200.0)
        found = np.asarray(controlled(jnp.asarray(u)))
        np.testing.assert_allclose(found[:-1], u[:-1], atol=1e-8)

    def test_equal_ratios_and_invalid_points(self):
        u = np.full(7, 0.2)
        u[3] = np.inf
        found = np.asarray(controlled(jnp.asarray(u)))
        assert found[3] == np.inf
        assert np.isfinite(np.delete(found, 3)).all()
        np.testing.assert_array_equal(np.asarray(normalisers(jnp.asarray(u)))[3], 0)


class TestControlled:
    """A translation of a Gaussian start that is not normal at its end."""

    MEAN, COV = np.array([0.3, -0.2]), np.diag([1.2, 0.9])
    START = GaussianMixture([1.0], [MEAN], [COV])

    def terms(self, share, x):
        target = StandardNormal(2)
        given = Controlled(self.START, target, jnp.asarray(share))
        plain, found = (
            np.asarray(costs(Translation(np.zeros(2)), Glide(1), aim, x).nll)
            for aim in (target, given)
        )
        return plain, found, plain + np.asarray(self.START.log_prob(x))

    def test_it_adds_what_has_mean_zero(self):
        x, weights = gauss_hermite(self.MEAN, self.COV)
        plain, found, u = self.terms(0.7, x)
        straight = np.exp(TAIL) * (1 - TAIL - u)
        np.testing.assert_allclose(
            found, plain + 0.7 * (np.where(u > -TAIL, np.exp(-u), straight) - 1), rtol=1e-10
        )
        assert weights @ np.exp(-u) == pytest.approx(1, abs=1e-7)  # 24 nodes
        assert weights @ found == pytest.approx(weights @ plain, abs=1e-7)  # 24 nodes

    def test_scores_weigh_one_less_the_share_of_their_ratio(self):
        x = self.MEAN + np.random.default_rng(0).standard_normal((5, 2))

        def score(share, point):
            given = Controlled(self.START, StandardNormal(2), jnp.asarray(share))
            return jax.grad(lambda m: costs(Translation(m), Glide(1), given, point[None]).nll[0])(
                jnp.zeros(2)
            )

        plain, found = (jax.vmap(functools.partial(score, c))(jnp.asarray(x)) for c in (0.0, 0.7))
        u = self.terms(0.0, x)[2]
        assert u.min() > -TAIL
        np.testing.assert_allclose(found, (1 - 0.7 * np.exp(-u))[:, None] * plain, rtol=1e-9)

    def test_the_share_leaves_the_least_second_moment(self):
        e = np.random.default_rng(1).lognormal(-0.3, 0.8, 1000)
        c = float(variate_share(jnp.asarray(e.sum()), jnp.asarray((e**2).sum())))
        least = np.mean((1 - c * e) ** 2)
        assert least < min(np.mean((1 - (c + step) * e) ** 2) for step in (-1e-3, 1e-3))
