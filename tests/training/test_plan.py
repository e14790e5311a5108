"""The start from a transport plan: partners are optimal, and stages learn to go there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from otflow.potentials import ConvexStages, GaussianBase
from otflow.reference import discrete
from otflow.targets import AbstractTarget, GaussianMixture
from otflow.training import Rows, dual, plan

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(plan, "_MOST", 150)
    monkeypatch.setattr(plan, "_BATCH", 128)
    monkeypatch.setattr(dual, "_BATCH", 128)


def two():
    return GaussianMixture([0.5, 0.5], [[-4.0, 0.0], [4.0, 0.0]], [0.25 * np.eye(2)] * 2)


def test_partners_are_those_of_an_optimal_plan(monkeypatch):
    """Half the mean squared distance is POT's, of every plan."""
    monkeypatch.setattr(plan, "_PLANS", 2)
    start, y = plan.pairs(Rows(X), two(), 0)
    x = start.x
    assert len(x) == 120
    for part in (slice(60), slice(60, 120)):
        exact = discrete(x[part], y[part])
        own = 0.5 * np.mean(np.sum((y[part] - x[part]) ** 2, axis=1))
        assert own == pytest.approx(exact.half_w2_squared, rel=1e-9)


def test_rows_without_weight_are_not_drawn():
    weight = np.r_[np.zeros(30), np.ones(30)]
    start, _ = plan.pairs(Rows(X, weight), two(), 0)
    assert set(map(tuple, start.x)) <= set(map(tuple, X[30:]))


def test_stages_carry_rows_to_their_partners(small):
    """In 150 steps half of what the Gaussian start misses; the same seed, the same stages."""
    K, base = 2, GaussianBase.solve(np.zeros(2), np.eye(2), 30.0, *two().moments())
    start = ConvexStages.create(base, K, 16, jax.random.key(0))
    found = plan.start_from_plan(start, Rows(X), two(), 150, 0)
    start_rows, y = plan.pairs(Rows(X), two(), 0)
    x = start_rows.x

    def missed(stages):
        end = x.astype(np.float32)
        for k in range(K):
            end = stages.image(end, k / K)
        return np.mean(np.sum((np.asarray(end) - y) ** 2, axis=1))

    assert missed(found) < 0.5 * missed(start)
    again = plan.start_from_plan(start, Rows(X), two(), 150, 0)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(again)))


class Shifted(AbstractTarget):
    """y = (5 c, 0) + e, e of two clusters, one of three times the other's mass."""

    condition: jax.Array | None = None
    dim = 2

    @property
    def condition_dim(self):
        return 1 if self.condition is None else 0

    @property
    def slope(self):
        return np.array([[5.0], [0.0]])

    def given(self, condition):
        return Shifted(condition)

    def log_prob(self, y):
        raise NotImplementedError

    def sample(self, key, n):
        clusters = GaussianMixture([0.25, 0.75], [[0.0, -4.0], [0.0, 4.0]], [0.1 * np.eye(2)] * 2)
        return self.condition @ self.slope.T + clusters.sample(key, n)


def test_partners_under_a_condition_have_that_condition(monkeypatch):
    """x | c is two clusters too, of the same shares: every row goes to its own, under its own c."""
    monkeypatch.setattr(plan, "_PLANS", 1)
    c = RNG.standard_normal((400, 1))
    lower = np.arange(400) % 4 == 0
    x = np.column_stack([-3 * c[:, 0], np.where(lower, -1, 1) + 0.1 * RNG.standard_normal(400)])
    start, end = plan.pairs(Rows(x, None, c), Shifted(), 0)
    assert {tuple(row) for row in np.column_stack([start.x, start.condition])} <= {
        tuple(row) for row in np.column_stack([x, c])
    }
    rest = end - start.condition @ Shifted().slope.T
    assert np.abs(rest[:, 0]).max() < 1.5  # e alone: 5 c goes with the row's own c
    assert np.mean(np.sign(rest[:, 1]) == np.sign(start.x[:, 1])) > 0.93


class TestDual:
    """One stage: the dual's minimiser is the optimal map of the laws, not of a discrete plan."""

    @pytest.mark.slow
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
        monkeypatch.setattr(plan, "descend_dual", broken)
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
