"""The start from a transport plan: partners are optimal, and stages learn to go there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from otflow.potentials import ConvexStages, GaussianBase
from otflow.reference import discrete
from otflow.targets import GaussianMixture
from otflow.training import Rows, plan

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(plan, "_MOST", 150)
    monkeypatch.setattr(plan, "_BATCH", 128)


def two():
    return GaussianMixture([0.5, 0.5], [[-4.0, 0.0], [4.0, 0.0]], [0.25 * np.eye(2)] * 2)


def test_partners_are_those_of_an_optimal_plan(monkeypatch):
    """Half the mean squared distance is POT's, of every plan."""
    monkeypatch.setattr(plan, "_PLANS", 2)
    x, y = plan.pairs(Rows(X), two(), 0)
    assert len(x) == 120
    for part in (slice(60), slice(60, 120)):
        exact = discrete(x[part], y[part])
        own = 0.5 * np.mean(np.sum((y[part] - x[part]) ** 2, axis=1))
        assert own == pytest.approx(exact.half_w2_squared, rel=1e-9)


def test_rows_without_weight_are_not_drawn():
    weight = np.r_[np.zeros(30), np.ones(30)]
    x, _ = plan.pairs(Rows(X, weight), two(), 0)
    assert set(map(tuple, x)) <= set(map(tuple, X[30:]))


def test_stages_carry_rows_to_their_partners(small):
    """In 150 steps half of what the Gaussian start misses; the same seed, the same stages."""
    K, base = 2, GaussianBase.solve(np.zeros(2), np.eye(2), 30.0, *two().moments())
    start = ConvexStages.create(base, K, 16, jax.random.key(0))
    found = plan.start_from_plan(start, Rows(X), two(), 150, 0)
    x, y = plan.pairs(Rows(X), two(), 0)

    def missed(stages):
        end = x.astype(np.float32)
        for k in range(K):
            end = stages.image(end, k / K)
        return np.mean(np.sum((np.asarray(end) - y) ** 2, axis=1))

    assert missed(found) < 0.5 * missed(start)
    again = plan.start_from_plan(start, Rows(X), two(), 150, 0)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(again)))


class TestDual:
    """One stage: the dual's minimiser is the optimal map of the laws, not of a discrete plan."""

    def test_a_known_map_is_found(self, small):
        """A normal to two clusters: monotone in one coordinate, linear in the other.

        150 steps leave less than a fifth of the Gaussian map's error.
        """
        x = RNG.standard_normal((2000, 2)).astype(np.float32)
        grid = np.linspace(-7, 7, 10_000)
        share = 0.5 * (norm.cdf(grid, -4, 0.5) + norm.cdf(grid, 4, 0.5))
        exact = np.column_stack([np.interp(norm.cdf(x[:, 0]), share, grid), 0.5 * x[:, 1]])
        base = GaussianBase.solve(np.zeros(2), np.eye(2), 1e9, *two().moments())
        start = ConvexStages.create(base, 1, 16, KEY)
        found = plan.start_from_plan(start, Rows(x), two(), 150, 0)
        before, after = (
            np.mean(np.sum((stages.image(x, 0.0) - exact) ** 2, axis=1))
            for stages in (start, found)
        )
        assert after < 0.2 * before

    def test_a_dual_that_breaks_costs_a_warning(self, small, monkeypatch):
        """The regression's stages are kept; a single step is enough to be asked for."""
        broken = lambda params, *rest: jax.tree.map(lambda a: a * np.nan, params)  # noqa: E731
        monkeypatch.setattr(plan, "_descend_dual", broken)
        base = GaussianBase.solve(np.zeros(2), np.eye(2), 1e9, *two().moments())
        start = ConvexStages.create(base, 1, 16, KEY)
        with pytest.warns(UserWarning, match="plan_iter: the dual became non-finite"):
            found = plan.start_from_plan(start, Rows(X), two(), 1, 0)
        assert np.isfinite(found.image(X, 0.0)).all()

    def test_one_stage_is_the_gradient_of_its_convex_function(self):
        base = GaussianBase.solve(np.zeros(2), np.eye(2), 30.0)
        stage = bent(ConvexStages.create(base, 1, 16, KEY))
        slope = jax.grad(lambda x: jnp.sum(stage.convex_value(x, 0.0)))(jnp.asarray(X))
        np.testing.assert_allclose(slope, stage.image(X, 0.0), rtol=1e-4, atol=1e-5)


def bent(stages):
    """With heights that are not silent."""
    stage = stages.stage
    loud = [jnp.full_like(a, 2.0) for a in (stage.ridge_heights, stage.group_heights)]
    return eqx.tree_at(lambda p: (p.stage.ridge_heights, p.stage.group_heights), stages, loud)
