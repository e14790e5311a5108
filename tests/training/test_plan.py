"""The start from a transport plan: partners are optimal, and stages learn to go there."""

import jax
import numpy as np
import pytest

from otflow.potentials import ConvexStages, GaussianBase
from otflow.reference import discrete
from otflow.targets import GaussianMixture
from otflow.training import Rows, plan

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 2))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(plan, "_STEPS", 150)
    monkeypatch.setattr(plan, "_BATCH", 64)


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


@pytest.mark.parametrize("K", [1, 2])
def test_stages_carry_rows_to_their_partners(small, K):
    """In 150 steps half of what the Gaussian start misses; the same seed, the same stages."""
    base = GaussianBase.solve(np.zeros(2), np.eye(2), 30.0, *two().moments())
    start = ConvexStages.create(base, K, 16, jax.random.key(0))
    found = plan.start_from_plan(start, Rows(X), two(), 0)
    x, y = plan.pairs(Rows(X), two(), 0)

    def missed(stages):
        end = x.astype(np.float32)
        for k in range(K):
            end = stages.image(end, k / K)
        return np.mean(np.sum((np.asarray(end) - y) ** 2, axis=1))

    assert missed(found) < 0.5 * missed(start)
    again = plan.start_from_plan(start, Rows(X), two(), 0)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(again)))
