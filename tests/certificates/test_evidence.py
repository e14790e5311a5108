"""Figures of weights: closed forms of log-normal and Pareto ones, and what they cannot see."""

import math
import warnings

import numpy as np
import pytest

from otflow.certificates.evidence import pareto_k, strongly_convex_line, weigh

N = 20_000


def lognormal(mean, sd, n=N, seed=0):
    return mean + sd * np.random.default_rng(seed).standard_normal(n)


def test_equal_weights_are_exact():
    found = weigh(np.full(1000, 3.25))
    assert found.log_evidence == pytest.approx(3.25, abs=1e-12)
    assert found.lower_bound == pytest.approx(3.25, abs=1e-12)
    assert found.kl == pytest.approx(0, abs=1e-12)
    assert found.ess == pytest.approx(1000)
    assert found.pareto_k == -math.inf
    assert found.findings == ()


@pytest.mark.parametrize("sd", [0.2, 0.6])
def test_of_lognormal_weights(sd):
    """log w ~ N(m, s^2): log Z = m + s^2/2, KL = s^2/2, ESS/n = exp(-s^2); 20,000 draws."""
    found = weigh(lognormal(-7.0, sd))
    low, high = found.line("log Z").interval
    assert low < -7 + sd**2 / 2 < high
    assert high - low < 0.05
    low, high = found.line("KL(q || posterior)").interval
    assert low < sd**2 / 2 < high
    assert -7.02 < found.lower_bound < -7
    assert found.ess / N == pytest.approx(math.exp(-(sd**2)), rel=0.05)
    assert found.line("E log w <= log Z").label.startswith("proved")
    assert {found.line(x).label for x in ("log Z", "KL(q || posterior)")} == {"estimated"}


@pytest.mark.parametrize("index", [0.3, 0.6, 1.0])
def test_pareto_weights_have_their_index(index):
    """w = u^-index is exactly Pareto; the error of the estimate is (1 + index) / sqrt(2,200)."""
    u = np.random.default_rng(1).random(N)
    assert pareto_k(-index * np.log(u)) == pytest.approx(index, abs=4 * (1 + index) / 47)


@pytest.mark.parametrize(("sd", "good"), [(0.3, True), (4.0, False)])
def test_it_says_when_weights_are_useless(sd, good):
    found = weigh(lognormal(0.0, sd))
    assert (found.findings == ()) == good
    if not good:
        assert "Pareto k" in found.findings[0]
        assert "of their number" in found.findings[1]


@pytest.mark.parametrize("index", [0.3, 0.8])
def test_pareto_k_is_that_of_arviz(index):
    """Zhang and Stephens' fit to the largest 3 sqrt(n) draws: an independent route."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    log_w = -index * np.log(np.random.default_rng(2).random(N))
    assert pareto_k(log_w) == pytest.approx(float(arviz.psislw(log_w)[1]), abs=0.2)


def test_a_missed_mode_is_not_seen():
    """q is one of two equal modes: every figure is perfect, and log Z is too small by log 2."""
    found = weigh(lognormal(-math.log(2), 1e-3))
    assert found.findings == ()
    assert found.line("log Z").interval[1] < -0.6
    assert "no draw reached" in found.line("log Z").explanation
    assert "no draw reached" in found.line("KL(q || posterior)").explanation


@pytest.mark.parametrize("sd", [0.8, 1.3])
def test_the_bound_of_strongly_convex_energies(sd):
    """q = N(0, s^2), p = N(0, 1), kappa = 1: grad log(q/p) = (1 - s^-2) x."""
    x = sd * np.random.default_rng(3).standard_normal((4000, 1))
    line = strongly_convex_line((1 - sd**-2) * x, 1.0)
    exact = 0.5 * (sd**2 - 1 - 2 * math.log(sd))
    assert exact < line.interval[1] < 0.5 * (1 - sd**-2) ** 2 * sd**2 * 1.1
    assert line.label == "proved (95 %)"
    assert strongly_convex_line((1 - sd**-2) * x, 2.0).value == pytest.approx(line.value / 2)


def test_a_weight_of_zero_leaves_no_bound():
    found = weigh(np.append(lognormal(0.0, 0.1), -np.inf))
    assert found.lower_bound == -math.inf
    assert found.kl == math.inf
    assert found.line("E log w <= log Z").label == "estimated"
    assert found.log_evidence == pytest.approx(0.005, abs=0.01)


@pytest.mark.parametrize(
    "bad", [[1.0], [[0.0, 1.0]], [0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]], ids=str
)
def test_bad_weights_are_refused(bad):
    with pytest.raises(ValueError, match="log_weights: expected"):
        weigh(np.array(bad))


def test_unknown_lines_are_named():
    found = weigh(lognormal(0.0, 0.1))
    with pytest.raises(KeyError, match="log Z"):
        found.line("x")
    assert "Pareto k" in found._repr_html_()
