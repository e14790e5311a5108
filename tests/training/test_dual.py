"""Kantorovich's dual of one stage: where points start, how the rate falls, when it ends."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials import ConvexStages, GaussianBase
from otflow.targets import GaussianMixture
from otflow.training import Rows, dual
from otflow.training.step import split_trainable

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def stage():
    base = GaussianBase.solve(np.zeros(2), np.diag([4.0, 0.25]), 1e3)
    return ConvexStages.create(base, 1, 4, jax.random.key(0))


NORMAL = GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])


def test_a_point_starts_at_the_best_row(stage):
    """The highest <x, y> - u(x) of all pairs."""
    y = 2 * RNG.standard_normal((50, 2)).astype(np.float32)
    found = np.asarray(dual._best_rows(stage, jnp.asarray(X), jnp.asarray(y)))
    values = np.asarray(stage.convex_value(X, 0.0))
    np.testing.assert_array_equal(found, X[np.argmax(y @ X.T - values, axis=1)])


def test_the_rate_falls_along_the_steps_or_the_clock():
    """Up within 50 steps, then half at half the way and 1 % at the end, whichever is further."""
    rates = dual._rates(np.array([0, 25, 500, 1000]), 1000, 0.0)
    np.testing.assert_allclose(rates / dual._RATE, [0.1, 0.55 * 0.99848, 0.505, 0.01], rtol=1e-4)
    np.testing.assert_allclose(dual._rates(np.array([500]), 10**6, 0.5) / dual._RATE, 0.505)
    np.testing.assert_allclose(dual._rates(np.array([100]), 10**6, 1.0)[0] / dual._RATE, 0.01)


def descend(stage, steps, **options):
    given = split_trainable(stage)
    return dual.descend_dual(*given, Rows(X), None, NORMAL, steps, 0, **options)


def test_it_ends_with_its_steps_or_before_its_seconds_are_over(stage, monkeypatch):
    now, sizes = 0.0, []

    def block(carry, static, ends, rates, picks, mesh):
        nonlocal now
        now += 1.0
        sizes.append(len(rates))
        return carry

    monkeypatch.setattr(dual, "_DRAWS", 512)
    monkeypatch.setattr(dual, "_block", block)
    monkeypatch.setattr(dual, "time", SimpleNamespace(perf_counter=lambda: now))
    for steps, seconds, expected in (
        (250, math.inf, [100, 100, 50]),
        (1000, 3.5, [100] * 3),
        (1000, 0.0, []),
        (150, 9.0, [100, 50]),
    ):
        sizes.clear()
        descend(stage, steps, seconds=seconds)
        assert sizes == expected


@pytest.mark.slow
def test_a_point_is_the_conjugate_one_of_its_draw(stage, monkeypatch):
    """After the last visit, at a rate of 0; the parameters do not move."""
    kept, block = [], dual._block
    monkeypatch.setattr(dual, "_RATE", 0.0)
    monkeypatch.setattr(dual, "_DRAWS", 400)
    monkeypatch.setattr(
        dual, "_block", lambda *given: kept.append((block(*given), given)) or kept[-1][0]
    )
    found = descend(stage, 2)
    params, _ = split_trainable(stage)
    assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(params)))
    ((_, _, points), (before, _, ends, _, picks, _)) = kept[0]
    visited = np.unique(picks[1])
    rest = np.setdiff1d(np.arange(400), visited)
    assert 0 < len(rest) < 100
    np.testing.assert_array_equal(points[rest], before[2][rest])
    np.testing.assert_allclose(stage.image(points, 0.0)[visited], ends[1][visited], atol=2e-3)
