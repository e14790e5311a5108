"""Normal scores and quantiles of the 1-d densities against SciPy, far into the tails."""

import numpy as np
import pytest
from scipy import stats

from otflow.reference import Mixture1D, tabulate

STANDARD = Mixture1D([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7])
SCORES = np.linspace(-12, 12, 97)


def test_mixture_against_scipy():
    x = np.linspace(-5, 5, 41)
    pdf = 0.4 * stats.norm.pdf(x, -2, 0.5) + 0.6 * stats.norm.pdf(x, 1.5, 0.7)
    cdf = 0.4 * stats.norm.cdf(x, -2, 0.5) + 0.6 * stats.norm.cdf(x, 1.5, 0.7)
    survival = 0.4 * stats.norm.sf(x, -2, 0.5) + 0.6 * stats.norm.sf(x, 1.5, 0.7)
    np.testing.assert_allclose(np.exp(STANDARD.log_pdf(x)), pdf, rtol=1e-12)
    below, above = STANDARD.log_tails(x)
    np.testing.assert_allclose(np.exp(below), cdf, rtol=1e-12)
    np.testing.assert_allclose(np.exp(above), survival, rtol=1e-12)


@pytest.mark.parametrize(
    "density",
    [
        pytest.param(STANDARD, id="mixture"),
        pytest.param(Mixture1D([0.5, 0.5], [-100.0, 100.0], [1.0, 1.0]), id="far apart"),
        pytest.param(tabulate(stats.laplace.logpdf, breaks=[0.0]), id="laplace"),
        pytest.param(tabulate(stats.t(5).logpdf), id="student"),
        pytest.param(tabulate(stats.expon.logpdf, (0.0, np.inf)), id="exponential"),
    ],
)
def test_quantile_inverts_the_score(density):
    """S(X(s)) = s to 1e-12, except inside a gap of the density, where S has a plateau."""
    x = density.quantile_of_score(SCORES)
    assert np.all(np.diff(x) > 0)
    np.testing.assert_allclose(density.normal_score(x), SCORES, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("law", "support", "breaks"),
    [
        pytest.param(stats.laplace(), (-np.inf, np.inf), [0.0], id="laplace"),
        pytest.param(stats.t(5), (-np.inf, np.inf), [], id="student"),
        pytest.param(stats.expon(), (0.0, np.inf), [], id="exponential"),
        pytest.param(stats.beta(2.5, 2.5), (0.0, 1.0), [], id="beta"),
        pytest.param(stats.norm(30.0, 0.5), (-np.inf, np.inf), [], id="shifted normal"),
    ],
)
def test_tabulated_tails_against_scipy(law, support, breaks):
    """1e-11 relative in both tails, down to probabilities of 1e-12."""
    density = tabulate(law.logpdf, support, breaks=breaks, centre=law.mean(), scale=law.std())
    lower = law.ppf([1e-12, 1e-6, 0.01, 0.3, 0.5])
    upper = law.isf([1e-12, 1e-6, 0.01, 0.3, 0.5])
    np.testing.assert_allclose(np.exp(density.log_tails(lower)[0]), law.cdf(lower), rtol=1e-11)
    np.testing.assert_allclose(np.exp(density.log_tails(upper)[1]), law.sf(upper), rtol=1e-11)


def test_mixtures_compare_by_value():
    """Equal mixtures share their cached panels, whatever sequences they were built from."""
    again = Mixture1D(np.array([0.4, 0.6]), (-2, 1.5), [0.5, 0.7])
    assert again == STANDARD
    assert hash(again) == hash(STANDARD)
    assert again.means == (-2.0, 1.5)
