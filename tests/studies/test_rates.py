"""Slopes against closed forms, intervals against the delta method, coverage by simulation."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from otflow.studies.rates import (
    Rate,
    Statement,
    fit_rate,
    verdict_at_least,
    verdict_slope,
)

X = np.array([1.0, 3.0, 10.0, 30.0, 100.0])


def power_law(slope, spread, r, rng, noise=0.0):
    """Replicates of X^slope with relative normal errors: each one's own and, noise, shared."""
    mean = X**slope
    own = np.broadcast_to(spread, X.shape)[:, None] * rng.standard_normal((len(X), r))
    return mean[:, None] * (1 + own + noise * rng.standard_normal((len(X), 1)))


def rate(low, high):
    return Rate(0.5 * (low + high), (low, high), 0.0, 5, 0, "")


class TestPointEstimate:
    @pytest.mark.parametrize("slope", [-2.0, -0.5, 1.0])
    def test_an_exact_power_law(self, slope):
        found = fit_rate(X, 7 * X[:, None] ** slope, 1e-9 * X**slope)
        assert found.slope == pytest.approx(slope, abs=1e-12)
        assert math.exp(found.intercept) == pytest.approx(7, rel=1e-12)
        assert found.n_points == 5
        assert found.n_unusable == 0
        assert found.interval == pytest.approx((slope, slope), abs=1e-8)

    def test_weights_are_inverse_relative_variances(self):
        """NumPy's polyfit with the same weights; one replicate, so the noise is all there is."""
        rng = np.random.default_rng(0)
        values = X[:, None] ** -1 * (1 + 0.2 * rng.standard_normal((5, 1)))
        noise = np.array([0.1, 0.01, 0.02, 0.001, 0.005])
        weights = values[:, 0] / noise
        slope, intercept = np.polyfit(np.log(X), np.log(values[:, 0]), 1, w=weights)
        found = fit_rate(X, values, noise)
        assert (found.slope, found.intercept) == pytest.approx((slope, intercept), rel=1e-10)
        plain = np.polyfit(np.log(X), np.log(values[:, 0]), 1)[0]
        assert abs(found.slope - plain) > 0.01  # weights matter here

    def test_replicates_enter_the_weights(self):
        """Many replicates: moderation changes the variances by less than 1 %."""
        rng = np.random.default_rng(1)
        spread = np.array([0.2, 0.2, 0.1, 0.05, 0.05])
        values = power_law(-1, spread, 2000, rng)
        mean = values.mean(axis=1)
        weights = mean / values.std(axis=1, ddof=1)
        slope = np.polyfit(np.log(X), np.log(mean), 1, w=weights)[0]
        assert fit_rate(X, values).slope == pytest.approx(slope, abs=1e-5)
        assert abs(slope - np.polyfit(np.log(X), np.log(mean), 1)[0]) > 1e-4

    def test_missing_replicates_are_left_out(self):
        values = power_law(-1, 0.1, 4, np.random.default_rng(0))
        padded = np.full((5, 6), np.nan)
        padded[:, [0, 2, 3, 5]] = values
        assert fit_rate(X, padded) == fit_rate(X, values)

    def test_a_point_without_replicates_is_left_out(self):
        values = power_law(-1, 0.1, 4, np.random.default_rng(0))
        values[2] = np.nan
        found, without = fit_rate(X, values), fit_rate(np.delete(X, 2), np.delete(values, 2, 0))
        assert found == without
        assert found.n_points == 4

    def test_a_point_whose_mean_is_not_positive_is_left_out_and_named(self):
        values = power_law(-1, 0.1, 4, np.random.default_rng(0))
        values[4] = [-1.0, 0.5, 0.2, -0.1]
        found = fit_rate(X, values)
        assert found.n_points == 4
        assert found.text.endswith("4 points; 1 left out, mean not positive")
        assert found.slope == fit_rate(X[:4], values[:4]).slope

    @pytest.mark.parametrize("bad", [np.nan, -1.0])
    def test_fewer_than_two_points_give_no_slope(self, bad):
        values = np.full((5, 3), bad)
        values[0] = 1.0
        found = fit_rate(X, values)
        assert math.isnan(found.slope)
        assert math.isnan(found.intercept)
        assert found.interval == (-math.inf, math.inf)
        assert found.n_points == 1
        assert found.text.startswith("no slope: two points with a positive mean are needed, 1 f")

    def test_an_exact_point_does_not_take_all_the_weight(self):
        values = power_law(-1, 0.1, 3, np.random.default_rng(0))
        values[0] = 1.0
        assert np.isfinite(fit_rate(X, values).slope)

    def test_text(self):
        found = fit_rate(X, power_law(-2, 0.1, 5, np.random.default_rng(0)), confidence=0.9)
        low, high = found.interval
        assert found.text == f"slope {found.slope:.4g} [{low:.4g}, {high:.4g}] at 90 %, 5 points"


class TestInterval:
    @pytest.mark.parametrize(
        ("spread", "noise", "r"),
        [(0.1, 0.0, 300), (0.2, 0.02, 300), (0.0, 0.05, 1), (0.0, 0.05, 4)],
    )
    def test_width_is_that_of_the_delta_method(self, spread, noise, r):
        """Errors small and replicates many or none: both routes agree within 5 % (sampling)."""
        values = power_law(-1, spread, r, np.random.default_rng(2))
        found = fit_rate(X, values, noise * X**-1, n_bootstrap=20_000)
        centred = np.log(X) - np.log(X).mean()
        variance = (spread**2 / r + noise**2) / (centred**2).sum()  # equal weights
        width = found.interval[1] - found.interval[0]
        assert width == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.05)
        assert sum(found.interval) / 2 == pytest.approx(found.slope, abs=0.05 * width)

    @pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
    def test_confidence_sets_the_width(self, confidence):
        values = X[:, None] ** -1
        found = fit_rate(X, values, 0.02 / X, confidence=confidence, n_bootstrap=20_000)
        width = found.interval[1] - found.interval[0]
        sigma = 0.02 / math.sqrt(((np.log(X) - np.log(X).mean()) ** 2).sum())
        half = stats.norm.ppf(0.5 + confidence / 2)
        assert width == pytest.approx(2 * half * sigma, rel=0.05)

    def test_the_seed_decides(self):
        values = power_law(-1, 0.1, 3, np.random.default_rng(0))
        assert fit_rate(X, values, seed=1) == fit_rate(X, values, seed=1)
        assert fit_rate(X, values, seed=1) != fit_rate(X, values, seed=2)

    def test_one_replicate_without_noise_has_no_interval(self):
        found = fit_rate(X, X[:, None] ** -1)
        assert found.slope == pytest.approx(-1)
        assert found.interval == (-math.inf, math.inf)
        assert "one replicate and no noise" in found.text

    def test_a_single_replicate_borrows_the_spread_of_the_others(self):
        """The slope of three points is that of the outer two, here with one replicate each."""
        values = power_law(-1, 0.1, 200, np.random.default_rng(0))[::2]
        values[[0, 2], 1:] = np.nan
        low, high = fit_rate(X[::2], values, n_bootstrap=20_000).interval
        sigma = 0.1 * math.sqrt(2) / math.log(X[-1])
        assert high - low == pytest.approx(2 * 1.96 * sigma, rel=0.15)  # 10 %: the pooled spread

    def test_draws_with_a_mean_that_is_not_positive_are_counted(self):
        """The last mean is one standard error above 0: about 16 % of the draws lose it."""
        values = X[:, None] ** -1
        found = fit_rate(X, values, [1e-3, 1e-3, 1e-3, 1e-3, 0.01], n_bootstrap=10_000)
        assert found.n_unusable / 10_000 == pytest.approx(stats.norm.cdf(-1), abs=0.02)
        assert np.isfinite(found.interval).all()

    def test_too_many_draws_without_a_slope_give_no_interval(self):
        found = fit_rate(X[:2], [[1.0], [0.1]], [1e-3, 0.1])
        assert found.interval == (-math.inf, math.inf)
        assert "too many bootstrap draws have no slope" in found.text
        rare = fit_rate(X[:2], [[1.0], [0.1]], [1e-3, 0.1 / 2.5])  # 0.6 % of the draws
        assert 0 < rare.n_unusable < 0.025 * 2000
        assert np.isfinite(rare.interval).all()

    @pytest.mark.parametrize(
        ("spread", "noise", "r"),
        [
            (0.1, 0.0, 2),
            (0.1, 0.0, 3),
            (0.3, 0.0, 3),
            (0.1, 0.0, 10),
            (0.1, 0.05, 3),
            (np.array([0.02, 0.05, 0.1, 0.2, 0.4]), 0.0, 5),
        ],
        ids=["two", "three", "three, wide", "ten", "noise", "growing spread"],
    )
    def test_coverage(self, spread, noise, r):
        """95 % intervals hold the true slope in 90 to 99 % of 250 repetitions.

        The share has a standard error of 1.4 %. Sample variances as weights and normal percentiles
        would hold it in 55 % (two replicates) and 75 % (three) of the same repetitions.
        """
        rng = np.random.default_rng(7)
        hits = 0
        for seed in range(250):
            values = power_law(-1, spread, r, rng, noise)
            low, high = fit_rate(X, values, noise / X, n_bootstrap=400, seed=seed).interval
            hits += low <= -1 <= high
        assert 0.90 <= hits / 250 <= 0.99


class TestBadInput:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"x": [1, 2, 0]}, ValueError, r"^x: expected distinct finite numbers > 0; got"),
            ({"x": [1, 2, 2]}, ValueError, r"^x: expected distinct"),
            ({"x": [1, 2, math.inf]}, ValueError, r"^x: expected distinct finite"),
            ({"x": [[1, 2, 3]]}, ValueError, r"^x: expected 1 axes; got shape \(1, 3\)"),
            ({"x": ["a"] * 3}, TypeError, r"^x: expected real numbers; got dtype <U1"),
            ({"values": np.ones(3)}, ValueError, r"^values: expected 2 axes; got shape \(3,\)"),
            ({"values": np.ones((2, 3))}, ValueError, r"^values: expected shape \(3, r >= 1\)"),
            ({"values": np.ones((3, 0))}, ValueError, r"^values: expected shape .*got \(3, 0\)"),
            ({"values": [[1], [math.inf], [1]]}, ValueError, r"^values: expected finite numbers"),
            ({"noise": -1.0}, ValueError, r"^noise: expected finite numbers >= 0; got -1"),
            ({"noise": [1.0, 1.0, math.nan]}, ValueError, r"^noise: expected finite numbers >= 0"),
            ({"noise": [1.0]}, ValueError, r"^noise: expected one number or 3; got 1"),
            ({"confidence": 1.0}, ValueError, r"^confidence: expected a number in \(0, 1\); got 1"),
            ({"n_bootstrap": 10}, ValueError, r"^n_bootstrap: expected an integer >= 100; got 10"),
            ({"n_bootstrap": 1e3}, TypeError, r"^n_bootstrap: expected an integer; got float"),
        ],
    )
    def test_fit_rate(self, changes, error, message):
        arguments = {"x": [1, 2, 3], "values": np.ones((3, 2)), "noise": 0.0} | changes
        with pytest.raises(error, match=message):
            fit_rate(**arguments)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((-2.0, -2.0, 0.1), TypeError, r"^rate: expected a Rate; got float"),
            ((rate(0, 1), math.nan, 0.1), ValueError, r"^expected: expected a finite number"),
            ((rate(0, 1), 1.0, -0.1), ValueError, r"^tolerance: expected a finite number >= 0"),
            ((rate(0, 1), "1", 0.1), TypeError, r"^expected: expected real numbers"),
        ],
    )
    def test_verdict_slope(self, arguments, error, message):
        with pytest.raises(error, match=message):
            verdict_slope(*arguments)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (([], []), ValueError, r"^means, standard_errors: expected k >= 1 each; got 0, 0"),
            (([1.0], [1.0, 2.0]), ValueError, r"^means, standard_errors: .*; got 1, 2"),
            (([1.0], [-1.0]), ValueError, r"^standard_errors: expected numbers >= 0; got -1"),
            (([1.0], [1.0], 0.0), ValueError, r"^confidence: expected a number in \(0, 1\)"),
            (([1.0], [1.0], 0.9, -1.0), ValueError, r"^slack: expected a finite number >= 0"),
            ((1.0, [1.0]), ValueError, r"^means: expected 1 axes; got shape \(\)"),
            (([None], [1.0]), TypeError, r"^means: expected real numbers; got dtype object"),
        ],
    )
    def test_verdict_at_least(self, arguments, error, message):
        with pytest.raises(error, match=message):
            verdict_at_least(*arguments)

    def test_statement(self):
        with pytest.raises(ValueError, match=r"^verdict: expected one of .*; got 'pass'"):
            Statement("KL falls", "pass", "")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-2.1, -1.9), "holds"),
        ((-2.25, -1.75), "holds"),
        ((-2.3, -1.9), "not resolved"),
        ((-2.1, -1.7), "not resolved"),
        ((-3.0, -1.0), "not resolved"),
        ((-math.inf, math.inf), "not resolved"),
        ((-1.7, -1.0), "violated"),
        ((-3.0, -2.3), "violated"),
        ((-1.75, -1.0), "not resolved"),
    ],
)
def test_a_slope_is_judged_by_its_whole_interval(interval, verdict):
    assert verdict_slope(rate(*interval), -2.0, 0.25) == verdict


def test_no_slope_is_not_resolved():
    assert verdict_slope(fit_rate(X, np.full((5, 1), np.nan)), -2.0, 0.25) == "not resolved"


Z = stats.norm.ppf(1 - 0.05 / 2)  # two claims at once, one-sided, 95 %


class TestAtLeast:
    @pytest.mark.parametrize(
        ("means", "errors", "slack", "verdict"),
        [
            ([1.01 * Z, 5.0], [1.0, 1.0], 0.0, "holds"),
            ([0.99 * Z, 5.0], [1.0, 1.0], 0.0, "not resolved"),
            ([0.99 * Z, 5.0], [1.0, 1.0], 0.02 * Z, "holds"),
            ([-1.01 * Z, 5.0], [1.0, 1.0], 0.0, "violated"),
            ([-0.99 * Z, 5.0], [1.0, 1.0], 0.0, "not resolved"),
            ([-1.01 * Z, 5.0], [1.0, 1.0], 0.02 * Z, "not resolved"),
            ([0.0, 5.0], [1e-9, 1.0], 0.0, "not resolved"),
            ([0.0, 5.0], [1e-9, 1.0], 1e-6, "holds"),
            ([0.0, 1.0], [0.0, 0.0], 0.0, "holds"),
            ([-1e-9, 1.0], [0.0, 0.0], 0.0, "violated"),
            ([math.nan, 5.0], [1.0, 1.0], 0.0, "not resolved"),
            ([9.0, 5.0], [math.nan, 1.0], 0.0, "not resolved"),
            ([9.0, 5.0], [math.inf, 1.0], 0.0, "not resolved"),
            ([math.inf, 5.0], [1.0, 1.0], 0.0, "not resolved"),
            ([math.nan, -5.0], [1.0, 1.0], 0.0, "violated"),
        ],
    )
    def test_bounds(self, means, errors, slack, verdict):
        assert verdict_at_least(means, errors, slack=slack) == verdict

    def test_a_true_claim_at_its_edge_is_rarely_called_violated_or_held(self):
        """Five true means of 0: each wrong answer in at most 5 % of 2,000 repetitions + 3 s.e."""
        rng = np.random.default_rng(0)
        found = [verdict_at_least(rng.standard_normal(5), np.ones(5)) for _ in range(2000)]
        assert 0.02 < found.count("violated") / 2000 < 0.05 + 3 * 0.005
        assert found.count("holds") == 0


def test_results_are_plain_and_frozen():
    statement = Statement("KL ~ alpha^-2", "holds", "slope -2.01 [-2.1, -1.9]")
    assert json.loads(json.dumps(statement.to_dict())) == {
        "claim": "KL ~ alpha^-2",
        "verdict": "holds",
        "evidence": "slope -2.01 [-2.1, -1.9]",
    }
    for result in (statement, rate(0, 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, 0)
