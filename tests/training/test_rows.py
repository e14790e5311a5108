"""Rows with weights and conditions, and the points between them."""

import jax.numpy as jnp
import numpy as np
import pytest

from otflow.data.rows import Rows, as_rows, spread

X = np.arange(10.0).reshape(5, 2)
C = np.arange(15.0).reshape(5, 3)
W = np.array([0.0, 2.0, 1.0, 0.5, 1.5])


def test_an_array_is_rows_with_nothing_beside_them():
    rows = as_rows(X)
    assert (rows.n, rows.weight, rows.condition) == (5, None, None)
    assert as_rows(rows) is rows


@pytest.mark.parametrize("index", [np.array([3, 0, 3]), slice(1, 3)], ids=["numbers", "slice"])
def test_take_keeps_the_three_together(index):
    found = Rows(X, W, C).take(index)
    for got, whole in ((found.x, X), (found.weight, W), (found.condition, C)):
        np.testing.assert_array_equal(got, whole[index])


def test_one_row_with_its_axis():
    assert Rows(X[0], W[0], C[0]).take(None).x.shape == (1, 2)


def test_means_are_weighted():
    values = np.array([5.0, 1.0, 2.0, 3.0, 4.0])
    weighted = Rows(jnp.asarray(X), jnp.asarray(W))
    np.testing.assert_allclose(weighted.mean(values), np.average(values, weights=W), rtol=1e-6)
    np.testing.assert_allclose(weighted.weighted(jnp.asarray(X)), W[:, None] * X, rtol=1e-6)
    assert Rows(X).mean(values) == 3.0
    assert Rows(X).weighted(X) is X


@pytest.mark.parametrize("n", [1, 2, 4, 5, 9])
def test_spread_puts_points_between_every_fourth_row_and_its_neighbours(n, float64):
    """x_i + (x_(i-1) - x_(i-2)) / 2, cyclically."""
    x = np.random.default_rng(0).standard_normal((n, 2))
    expected = [x[i] + 0.5 * (x[(i - 1) % n] - x[(i - 2) % n]) for i in range(0, n, 4)]
    np.testing.assert_allclose(spread(jnp.asarray(x)), expected, rtol=1e-14)


def test_the_points_around_keep_the_condition_of_their_row():
    around = Rows(jnp.asarray(X), jnp.asarray(W), jnp.asarray(C)).around()
    np.testing.assert_array_equal(around.x, spread(jnp.asarray(X)))
    np.testing.assert_array_equal(around.condition, C[[0, 4]])
    assert around.weight is None
