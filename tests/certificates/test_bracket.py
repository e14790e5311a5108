"""The bracket of 1/2 W2^2 against closed forms, and bad input."""

import dataclasses

import numpy as np
import pytest

from otflow.certificates import DualConfig, bracket_pairs
from otflow.certificates.bounds import lower_bound, upper_bound
from otflow.certificates.bracket import bracket
from otflow.certificates.fitting import fit_dual, gaps
from otflow.reference import gaussian, product_mixture

QUICK = DualConfig(width=16, regression_steps=400, ascent_steps=50, batch_size=90)
MEAN, COV = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]])


def test_by_hand():
    rng = np.random.default_rng(0)
    half, gap = rng.chisquare(2, 300), 0.01 * rng.chisquare(1, 100)
    found = bracket(half, gap, 0.9)
    assert found.upper == upper_bound(half, 0.95).value
    low, most = lower_bound(half, 1 - 0.045), upper_bound(gap, 1 - 0.005)
    assert found.lower == low.value - most.value
    assert found.excess == upper_bound(gap, 0.9).value
    assert (found.n, found.n_gap) == (300, 100)
    few = "{} draws, fewer than 400, cannot tell their tail"
    assert found.doubts == (few.format(300), "dual gap: " + few.format(100))
    assert found.relative_width == pytest.approx((found.upper - found.lower) / found.upper)
    assert bracket(half, 100 + gap, 0.9).lower == 0.0  # W2 is never negative


@pytest.mark.parametrize("exact", [gaussian(MEAN, COV, 10.0), product_mixture(2, 10.0)],
                         ids=["gaussian", "product"])  # fmt: skip
def test_truth_lies_inside_and_the_gap_is_small(exact):
    """One seed; a 95 % bracket. The fit is short: gaps up to 15 %."""
    x = exact.sample(0, 2000)
    found = bracket_pairs(x, exact.map(x), config=QUICK)
    assert found.lower < exact.transport < found.upper
    assert 0 <= found.gap < 0.15 * found.upper
    assert found.excess < 0.2 * found.upper


def test_coverage_of_small_samples():
    """60 repetitions of 200 rows at 95 %: fewer than 52 would happen once in 400 at 95 %.

    No steps: between Gaussians the Gaussian map is kept whatever the fit (its gap is 1e-15)."""
    exact, held = gaussian(MEAN, COV, 10.0), 0
    config = dataclasses.replace(QUICK, regression_steps=0, ascent_steps=0)
    for seed in range(60):
        x = exact.sample(seed, 200)
        found = bracket_pairs(x, exact.map(x), config=config, seed=seed)
        held += found.lower <= exact.transport <= found.upper
    assert held >= 52


def test_what_may_be_called_proved():
    """Squares of two normal columns may; of a Pareto column, and beside a Pareto gap, not."""
    rng = np.random.default_rng(0)
    half, heavy = rng.exponential(size=2000), rng.pareto(2.5, 2000) ** 2
    assert bracket(half, None).doubts == bracket(half, half).doubts == ("", "")
    assert (bracket(half, None).gap, bracket(half, None).excess) == (0.0, 0.0)
    assert bracket(heavy, None).doubts[0].startswith("the tail index may be")
    assert bracket(heavy, None).doubts[1] == ""
    assert all(doubt.startswith("dual gap: the tail") for doubt in bracket(half, heavy).doubts)


def test_a_coupling_that_is_not_optimal_leaves_a_wide_bracket():
    """y = -x for N(0, I): cost 2d, optimal 0."""
    x = np.random.default_rng(0).standard_normal((2000, 2))
    found = bracket_pairs(x, -x, config=QUICK)
    assert found.half_displacement == pytest.approx(4, rel=0.1)
    assert found.lower < 0.5
    assert found.excess > 3


def test_gaps_do_not_depend_on_the_rows_around_them():
    exact = gaussian(MEAN, COV, 10.0)
    x = exact.sample(0, 2000)
    y = exact.map(x)
    u = fit_dual(x[:1000], y[:1000], QUICK, 100.0, 0)
    assert (gaps(u, x, y, QUICK) > -1e-12).all()
    np.testing.assert_allclose(
        gaps(u, x, y, QUICK)[:1000], gaps(u, x[:1000], y[:1000], QUICK), rtol=1e-3, atol=1e-6
    )


def test_no_time_still_gives_a_valid_bracket():
    exact = gaussian(MEAN, COV, 10.0)
    x = exact.sample(0, 2000)
    found = bracket_pairs(x, exact.map(x), config=QUICK, seconds=1e-9)
    assert found.lower < exact.transport < found.upper


X = np.zeros((10, 2)) + np.arange(10)[:, None]
BAD = {
    "shapes": ({"y": X[:5]}, ValueError, r"^y: expected the shape of x, \(10, 2\); got \(5, 2\)"),
    "vector": ({"x": X[0]}, ValueError, r"^x: expected shape \(n, d\); got \(2,\)"),
    "few": ({"x": X[:3], "y": X[:3]}, ValueError, "^x: expected at least 4 rows; got 3"),
    "nan": ({"x": X * np.nan}, ValueError, "^x: expected finite numbers"),
    "text": ({"x": [["a", "b"]] * 5}, TypeError, "^x: expected an array of numbers; got list"),
    "confidence": ({"confidence": 1.0}, ValueError, r"^confidence: expected a number in \(0, 1\)"),
    "confidence type": ({"confidence": "95"}, TypeError, "^confidence: .*; got str"),
    "seconds": ({"seconds": 0.0}, ValueError, "^seconds: expected a finite number > 0; got 0.0"),
    "seed": ({"seed": -1}, ValueError, "^seed: expected an integer >= 0; got -1"),
}


@pytest.mark.parametrize(("change", "error", "match"), BAD.values(), ids=BAD)
def test_bad_input(change, error, match):
    given = {"x": X, "y": X, "config": QUICK} | change
    x, y = given.pop("x"), given.pop("y")
    with pytest.raises(error, match=match):
        bracket_pairs(x, y, **given)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [("width", 0, ValueError), ("ascent_steps", -1, ValueError), ("learning_rate", "x", TypeError)],
)
def test_config_is_checked(field, value, error):
    with pytest.raises(error, match=f"^{field}: expected"):
        DualConfig(**{field: value})
