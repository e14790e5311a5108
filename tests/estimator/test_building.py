"""Schemes by name, and the potential a run starts from."""

import warnings

import equinox as eqx
import jax
import numpy as np
import pytest

from otflow import Flow
from otflow.estimator.building import (
    least_gaussian_directions,
    make_scheme,
    regression,
    starting_potential,
)
from otflow.potentials import ConditionalResNet, GaussianBase, ResNetPotential
from otflow.reference import gaussian
from otflow.schemes import RK4, Conforming
from otflow.targets import AbstractTarget, GaussianMixture, StandardNormal

SCHEMES = {
    "conforming by default": ("conforming", None, Conforming(4)),
    "rk4 by default": ("rk4", None, RK4(8)),
    "conforming": ("conforming", 3, Conforming(3)),
    "rk4": ("rk4", np.int64(2), RK4(2)),
}


@pytest.mark.parametrize(("name", "n_steps", "expected"), SCHEMES.values(), ids=SCHEMES)
def test_schemes(name, n_steps, expected):
    scheme = make_scheme(name, n_steps)
    assert type(scheme) is type(expected)
    assert scheme == expected
    assert type(scheme.n_steps) is int


BAD_SCHEMES = {
    "unknown": ("euler", None, ValueError, r"^scheme: expected one of .*; got 'euler'"),
    "no steps": ("rk4", 0, ValueError, r"^n_steps: expected an integer >= 1; got 0"),
    "a fraction": ("conforming", 2.0, TypeError, r"^n_steps: expected an integer >= 1; got float"),
    "a boolean": ("conforming", True, TypeError, r"^n_steps: expected an integer >= 1; got bool"),
}


@pytest.mark.parametrize(
    ("name", "n_steps", "error", "message"), BAD_SCHEMES.values(), ids=BAD_SCHEMES
)
def test_bad_schemes_are_rejected(name, n_steps, error, message):
    with pytest.raises(error, match=message):
        make_scheme(name, n_steps)


def rows(dim, n=200):
    noise = np.random.default_rng(0).standard_normal((n, dim))
    return noise @ (0.5 * np.eye(dim) + 0.5 * np.tri(dim)) + np.arange(dim) + 1


def start(x, target=None, base="gaussian", depth=2, alpha=3.0):
    target = StandardNormal(x.shape[1]) if target is None else target
    return starting_potential(x, target, alpha, 8, depth, base, jax.random.key(0))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("dim", [1, 3])
class TestOnABase:
    def test_the_map_is_the_references_up_to_a_small_quadratic(self, dim, depth):
        """T(x) = T_gauss(x) - A'A (x, 0): the rest of the network is silent."""
        x = rows(dim)
        cov = np.cov(x, rowvar=False, bias=True).reshape(dim, dim)
        exact = gaussian(x.mean(axis=0), cov, 3.0).map(x)
        potential = start(x, depth=depth)
        found = np.asarray(Flow(potential, None, Conforming(1)).forward(x))
        network = potential.terms[1]
        Ax = np.asarray(network.A)[:, :dim]
        np.testing.assert_allclose(found, exact - x @ Ax.T @ Ax, atol=1e-10)
        np.testing.assert_allclose(found, exact, atol=1e-3 * np.abs(x).max())
        assert np.abs(exact - x).max() > 0.1

    def test_sizes_and_what_is_trained(self, dim, depth):
        potential = start(rows(dim), depth=depth)
        base, network = potential.terms
        assert isinstance(base, GaussianBase)
        assert (network.dim, network.width, network.depth) == (dim, 8, depth)
        assert (np.asarray(network.w) == 0).all()


class OfUnknownMoments(AbstractTarget):
    """N(0, I) in space by its density alone."""

    dim = 3

    def log_prob(self, y):
        return StandardNormal(3).log_prob(y)

    def sample(self, key, n):
        return StandardNormal(3).sample(key, n)


WITHOUT = {
    "no base": lambda: start(rows(3), base=None),
    "no moments": lambda: start(rows(3), OfUnknownMoments()),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", WITHOUT.values(), ids=WITHOUT)
def test_without_a_base_the_network_speaks(make):
    potential = make()
    assert isinstance(potential, ResNetPotential)
    np.testing.assert_array_equal(potential.w, 1)


def mixture(dim):
    means = np.stack([np.zeros(dim), 2 + np.arange(dim)])
    return GaussianMixture([0.3, 0.7], means, np.stack([np.eye(dim), 0.5 * np.eye(dim)]))


@pytest.mark.usefixtures("float64")
def test_a_mixture_is_met_in_its_moments():
    """At large alpha the start carries the rows' mean and covariance to the mixture's."""
    x, target = rows(3), mixture(3)
    base, network = start(x, target, alpha=1e8).terms
    np.testing.assert_array_equal(network.w, 0)
    moved = np.asarray(Flow(base, target, Conforming(1)).forward(x))
    np.testing.assert_allclose(moved.mean(axis=0), target.moments().mean, atol=1e-6)
    cov = np.cov(moved, rowvar=False, bias=True)
    np.testing.assert_allclose(cov, target.moments().cov, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_the_key_decides():
    def first(seed):
        key = jax.random.key(seed)
        return starting_potential(rows(3), StandardNormal(3), 3.0, 8, 2, "gaussian", key).terms[1]

    np.testing.assert_array_equal(first(1).A, first(1).A)
    assert not np.allclose(first(1).A, first(2).A)


@pytest.mark.usefixtures("float64")
class TestEigenvalueFloor:
    """Principal variances 4 and v, exactly; the floor is 1e-3 of their mean."""

    def rows(self, small):
        square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        turn = np.array([[0.6, -0.8], [0.8, 0.6]])
        return square * np.sqrt([4.0, small]) @ turn.T

    @pytest.mark.parametrize("small", [1e-3, 1e-9, 0.0])
    def test_warns_and_raises_the_variance(self, small):
        message = "1 of 2 principal variances lie below .*raised to it"
        with pytest.warns(UserWarning, match=message):
            base = start(self.rows(small)).terms[0]
        expected = np.array([1e-3 * (4 + small) / 2, 4.0])
        turn = np.array([[0.8, 0.6], [-0.6, 0.8]]).T
        exact = gaussian(np.zeros(2), (turn * expected) @ turn.T, 3.0)
        np.testing.assert_allclose(1 + base.stretch, exact.mapped_stds / exact.stds, rtol=1e-6)

    def test_is_silent_above_the_floor(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            base = start(self.rows(3e-3)).terms[0]
        assert 1 / (1 + base.stretch[0]) < np.sqrt(4e-3)


class TestCondition:
    rng = np.random.default_rng(2)
    C = rng.standard_normal((200, 2)) + np.array([1.0, -3.0])
    W = np.array([[1.0, 0.5], [0.0, -2.0], [0.3, 0.0]])
    X = C @ W.T + rng.standard_normal((200, 3)) * [0.5, 1.0, 2.0] + [4.0, 0.0, -1.0]

    def start(self, base="gaussian", target=None, weight=None):
        target = StandardNormal(3) if target is None else target
        key = jax.random.key(0)
        return starting_potential(self.X, target, 10.0, 8, 2, base, key, self.C, weight)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_regression_is_the_weighted_least_squares_fit(self, weighted):
        """Against the normal equations with a column of ones."""
        w = self.rng.integers(0, 3, 200).astype(float) if weighted else np.ones(200)
        mean, W = regression(self.X, self.C, w if weighted else None)
        design = np.column_stack([np.ones(200), self.C])
        scaled = w[:, None] * design
        expected = np.linalg.solve(scaled.T @ design, scaled.T @ self.X)
        np.testing.assert_allclose(mean, expected[0], rtol=1e-9)
        np.testing.assert_allclose(W, expected[1:].T, rtol=1e-9, atol=1e-12)

    def test_one_hot_classes_get_their_own_means(self):
        labels = self.rng.integers(3, size=200)
        mean, W = regression(self.X, np.eye(3)[labels])
        for k in range(3):
            np.testing.assert_allclose(mean + W[:, k], self.X[labels == k].mean(axis=0), rtol=1e-9)

    def test_starts_from_the_gaussian_of_the_residuals(self, float64):
        base, network = self.start().terms
        mean, W = regression(self.X, self.C)
        cov = np.cov(self.X - self.C @ W.T, rowvar=False, bias=True)
        exact = GaussianBase.solve(mean + W @ self.C[0], cov, 10.0)
        found = base.given(self.C[0])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)
        np.testing.assert_array_equal(network.network.w, 0)
        np.testing.assert_array_equal(network.G, 0)

    def test_without_a_base_a_random_network(self, float64):
        potential = self.start(base=None)
        assert isinstance(potential, ConditionalResNet)
        assert (potential.dim, potential.condition_dim) == (3, 2)
        np.testing.assert_array_equal(potential.network.w, 1)

    def test_a_mixture_is_met_in_its_moments_for_every_condition(self, float64):
        target = mixture(3)
        base, _ = self.start(target=target).terms
        mean, W = regression(self.X, self.C)
        cov = np.cov(self.X - self.C @ W.T, rowvar=False, bias=True)
        exact = GaussianBase.solve(mean + W @ self.C[0], cov, 10.0, *target.moments())
        found = base.given(self.C[0])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("conditional", [False, True])
    def test_integer_weights_are_repeated_rows(self, conditional, float64):
        counts = self.rng.integers(0, 4, 200)
        repeated = np.repeat(np.arange(200), counts)
        start = (StandardNormal(3), 10.0, 8, 2, "gaussian", jax.random.key(0))
        c, again = (self.C, self.C[repeated]) if conditional else (None, None)
        found = starting_potential(self.X, *start, c, counts / counts.mean())
        expected = starting_potential(self.X[repeated], *start, again)
        one = self.C[0] if conditional else None
        derivatives = eqx.filter_jit(lambda p: p.given(one).gradient_and_hessian(self.X[:3], 0.3))
        hessians = [derivatives(p) for p in (found, expected)]
        for a, b in zip(*map(jax.tree.leaves, hessians), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


class TestDirections:
    def test_they_are_those_of_independent_components(self):
        """Rotated product of two-humped factors: the rotation's columns."""
        rng = np.random.default_rng(0)
        sources = rng.choice([-1.5, 1.5], (4000, 5)) + 0.4 * rng.standard_normal((4000, 5))
        rotation = np.linalg.qr(rng.standard_normal((5, 5)))[0]
        found = least_gaussian_directions(sources @ rotation.T)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-12)
        cosines = np.abs(found @ rotation)
        assert cosines.max(axis=0).min() > 0.995  # 1 - O(1/n); an angle of 6 degrees

    def test_ridges_start_along_them(self, float64):
        x = np.random.default_rng(0).uniform(-1, 1, (300, 3)) ** 3
        key = jax.random.key(0)
        potential = starting_potential(
            x, StandardNormal(3), 1.0, 8, 0, "gaussian", key, aligned=True
        )
        rows = np.asarray(potential.terms[1].weights[0])[:, :3]
        expected = 1.5 * least_gaussian_directions(x)[np.arange(8) % 3]
        np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("x", [np.ones((9, 1)), np.ones((9, 3)), np.eye(3)[:, [0, 0, 1]]])
    def test_none_where_there_are_none(self, x):
        assert least_gaussian_directions(x) is None
