"""The advised penalty, on Gaussian data whose rate constant is known."""

import math

import numpy as np
import pytest

from otflow.reference import gaussian
from otflow.studies import advice
from otflow.studies.advice import advise_alpha
from otflow.studies.problems import DataProblem

N, MEAN, STD = 1600, 1.5, 0.5


def data():
    return MEAN + STD * np.random.default_rng(0).standard_normal((N, 1))


@pytest.fixture(scope="module")
def found():
    return advise_alpha(data(), width=3, max_iter=1)


@pytest.mark.slow
def test_the_rate_constant(found):
    """Against the exact transports for the moments of the training rows, at alpha = 3 and 10.

    These give c up to O(1/alpha); the closed form itself is (1 - sig)^2 / 4 + mean^2 / 2.
    """
    mean, cov = DataProblem(data(), 0.2, 0).moments()
    low, high = (gaussian(mean, cov, alpha).transport for alpha in (3.0, 10.0))
    assert found.rate_constant == pytest.approx((high - low) / (2 / 3 - 2 / 10), rel=0.05)
    assert found.rate_constant == pytest.approx((1 - STD) ** 2 / 4 + MEAN**2 / 2, rel=0.5)


def test_the_effective_parameters(found):
    """A Gaussian's mean and standard deviation count almost whole (a translation alone:
    sig^2 alpha / (1 + alpha)); a ridge adds at most its weight, slope and offset."""
    assert 0.5 < found.effective_parameters < 2 + 3 * 3


def test_the_advice_balances_bias_and_estimation(found):
    bias = found.rate_constant / found.alpha
    estimation = found.alpha * found.effective_parameters / (2 * N)
    assert bias == pytest.approx(estimation, rel=1e-12)
    low, high = found.interval
    assert low < found.alpha < high < 2 * low
    assert found.n == N
    for number in (f"{found.alpha:.3g}", f"{found.rate_constant:.3g}", f"n = {N}"):
        assert number in found.reasoning


def test_no_advice_where_the_bias_is_not_resolved(monkeypatch):
    """Two flows that transport alike."""
    monkeypatch.setattr(advice, "train_members", lambda flows, *args: [flows[0]] * 2)
    monkeypatch.setattr(advice, "effective_parameters", lambda *args: 2.0)
    found = advise_alpha(data(), width=2)
    assert math.isnan(found.alpha)
    assert found.rate_constant == pytest.approx(0, abs=1e-12)
    assert "not resolved from 0: no advice" in found.reasoning


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"X": np.zeros(60)}, ValueError, r"^X: expected shape \(n, d\) with n >= 50"),
        ({"X": data()[:49]}, ValueError, r"^X: expected shape \(n, d\) with n >= 50"),
        ({"X": np.where(data() > 2, np.inf, data())}, ValueError, r"^X: expected finite numbers"),
        ({"max_iter": 0}, ValueError, r"^max_iter: expected an integer >= 1"),
        ({"width": 0}, ValueError, r"^width: expected an integer >= 1"),
        ({"width": 2.0}, TypeError, r"^width: expected an integer >= 1; got float"),
    ],
)
def test_refused(args, error, message):
    with pytest.raises(error, match=message):
        advise_alpha(**({"X": data()} | args))
