"""Discrete optimal transport against sorting, assignment and linear programming."""

import sys

import numpy as np
import pytest
from scipy import optimize

from otflow.reference import discrete

RNG_SEED = 0


def clouds(n, m, dim):
    rng = np.random.default_rng(RNG_SEED)
    return rng.standard_normal((n, dim)), rng.standard_normal((m, dim)) + 0.5


def cost_matrix(x, y):
    return 0.5 * np.sum((x[:, None] - y[None]) ** 2, axis=-1)


def test_line_is_sorting():
    x, y = clouds(50, 50, 1)
    solved = discrete(x, y)
    expected = 0.5 * np.mean((np.sort(x[:, 0]) - np.sort(y[:, 0])) ** 2)
    assert solved.half_w2_squared == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(np.sort(solved.map(), axis=0), np.sort(y, axis=0), rtol=1e-12)


def test_equal_weights_are_an_assignment():
    x, y = clouds(40, 40, 3)
    rows, columns = optimize.linear_sum_assignment(cost_matrix(x, y))
    solved = discrete(x, y)
    expected = cost_matrix(x, y)[rows, columns].mean()
    assert solved.half_w2_squared == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(solved.map(), y[columns], rtol=1e-12)


def test_weighted_plan_against_linear_programming():
    """HiGHS on the same linear programme; its feasibility tolerance is 1e-7."""
    x, y = clouds(7, 5, 2)
    a, b = np.arange(1.0, 8) / 28, np.array([0.1, 0.3, 0.2, 0.15, 0.25])
    solved = discrete(x, y, a, b)
    sums = np.vstack([np.kron(np.eye(7), np.ones(5)), np.kron(np.ones(7), np.eye(5))])
    programme = optimize.linprog(cost_matrix(x, y).ravel(), A_eq=sums, b_eq=np.append(a, b))
    assert solved.half_w2_squared == pytest.approx(programme.fun, rel=1e-7)
    np.testing.assert_allclose(solved.plan.sum(1), a, atol=1e-14)
    np.testing.assert_allclose(solved.plan.sum(0), b, atol=1e-14)
    assert np.all(solved.plan >= 0)
    assert abs(solved.duality_gap) < 1e-12


def test_empirical_value_is_biased_upwards():
    """The documented caution: two samples of one law in 8 dimensions are far apart."""
    rng = np.random.default_rng(1)
    solved = discrete(rng.standard_normal((200, 8)), rng.standard_normal((200, 8)))
    assert solved.half_w2_squared > 1.0  # the true value is 0


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"otflow\[pot\]"):
        discrete(np.zeros((2, 1)), np.ones((2, 1)))


def test_unfinished_simplex_is_an_error():
    x, y = clouds(60, 60, 2)
    with pytest.raises(RuntimeError, match="did not finish"):
        discrete(x, y, max_iterations=1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param((np.zeros(3), np.zeros((3, 1))), ValueError, "x: expected shape", id="1-d x"),
        pytest.param((np.zeros((3, 2)), np.zeros((3, 1))), ValueError, "same dim", id="dims"),
        pytest.param(
            (np.zeros((2, 1)), np.zeros((2, 1)), [0.5, 0.6]), ValueError, "weights_x", id="sum"
        ),
        pytest.param(
            (np.zeros((2, 1)), np.zeros((2, 1)), None, [1.0]), ValueError, "weights_y", id="length"
        ),
        pytest.param(
            (np.zeros((2, 1)), np.zeros((2, 1)), [1.0, 0.0]), ValueError, "> 0", id="zero weight"
        ),
        pytest.param((np.full((2, 1), np.nan), np.zeros((2, 1))), ValueError, "finite", id="NaN"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        discrete(*arguments)
