"""The law of a pushed normal: a Gaussian's closed form, its inverse, its integral, its scores."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from otflow.data.preprocessing import ColumnMap
from otflow.flow.pushed_normal import PushedNormal
from otflow.flow.unnormalised import LogDensity
from otflow.potentials import ConvexStages, GaussianBase
from otflow.schemes import Conforming
from otflow.support.precision import precision

SHIFT, FACTOR = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.0, 0.3]])
GAUSSIAN = stats.multivariate_normal(SHIFT, FACTOR @ FACTOR.T)
POSITIVE = ColumnMap((0.0, -1.0), (None, 1.0), (0.0, 0.0))


def law(columns, loud):
    """At rest, or with ridges and terms that bend; float64."""
    with precision("float64"):
        rest = GaussianBase.solve(np.zeros(2), np.eye(2), 1.0)
        potential = ConvexStages.create(rest, 2, 3, jax.random.key(0), 1, 4)
        if loud:
            where = lambda p: (p.stage.ridge_heights, p.stage.group_heights)  # noqa: E731
            potential = eqx.tree_at(where, potential, replace_fn=lambda a: a + 2.0)
        else:
            where = lambda p: (p.stage.ridges, p.stage.terms)  # noqa: E731
            potential = eqx.tree_at(where, potential, replace_fn=jnp.zeros_like)
        return PushedNormal(
            potential, Conforming(2), columns, jnp.asarray(SHIFT), jnp.asarray(FACTOR)
        )


@pytest.fixture(scope="module")
def bent():
    return law(POSITIVE, loud=True)


@pytest.mark.slow
def test_at_rest_it_is_the_gaussian():
    """Weights of an unnormalised Gaussian of twice its covariance in closed form; scores too."""
    found = law(ColumnMap.identity(2), loud=False)
    precision_ = jnp.linalg.inv(FACTOR @ FACTOR.T)
    density = LogDensity(lambda x: -0.25 * (x - SHIFT) @ precision_ @ (x - SHIFT), 2)
    drawn = found.draw(400, 0, density)
    assert np.allclose(drawn.log_prob, GAUSSIAN.logpdf(drawn.points), rtol=1e-9)
    assert np.allclose(found.log_prob(drawn.points), drawn.log_prob, rtol=1e-9)
    r = np.linalg.solve(FACTOR, (drawn.points - SHIFT).T).T
    weight = -0.25 * np.sum(r**2, axis=1) - GAUSSIAN.logpdf(drawn.points)
    assert np.allclose(drawn.log_weight, weight, rtol=1e-6)  # the precision is float32
    scores = found.scores(density, 400, 0)
    assert np.allclose(scores, -0.5 * np.linalg.solve(FACTOR.T, r.T).T, rtol=1e-4, atol=1e-5)


def test_the_inverse_gives_the_density_of_the_draws(bent):
    drawn = bent.draw(200, 3)
    assert POSITIVE.inside(drawn.points).all()
    assert np.allclose(bent.log_prob(drawn.points), drawn.log_prob, atol=1e-8)
    assert np.isnan(drawn.log_weight).all()
    assert np.array_equal(bent.draw(200, 3).points, drawn.points)


def test_its_density_is_the_determinant_by_automatic_differentiation(bent, float64):
    x = jax.random.normal(jax.random.key(1), (20, 2))
    J = jax.vmap(jax.jacfwd(lambda row: bent.line(row[None])[0][0]))(x)
    log_prob = stats.norm.logpdf(x).sum(axis=1) - np.linalg.slogdet(J).logabsdet
    assert np.allclose(bent.line(x)[1], log_prob, rtol=1e-10)


def test_its_density_integrates_to_one(bent):
    """Trapezoids on the line, where the density is smooth: 120 x 120 points, 1e-3."""
    axes = [np.linspace(-14, 16, 120), np.linspace(-6, 2, 120)]
    y = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    theta = POSITIVE.inverse(y)
    value = np.exp(bent.log_prob(theta) - POSITIVE.log_det(theta)).sum()
    assert value * (30 / 119) * (8 / 119) == pytest.approx(1, abs=1e-3)


def test_parts_of_different_sizes_are_refused(bent):
    with pytest.raises(ValueError, match="shift: expected shape"):
        PushedNormal(bent.potential, bent.scheme, POSITIVE, jnp.zeros(3), bent.factor)
    with pytest.raises(ValueError, match="potential: expected one"):
        PushedNormal(bent.potential, Conforming(3), POSITIVE, bent.shift, bent.factor)
