"""NumPyro models: a conjugate one in closed form, sites in their constrained space."""

import math
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    numpyro = pytest.importorskip("numpyro")
    dist = pytest.importorskip("numpyro.distributions")

from otflow import fit_numpyro

QUICK = {"width": 4, "n_steps": 1, "max_iter": 25, "batch_size": 64, "verbose": False}
ROWS = np.array([1.0, 2.0, 4.0])


def normal(y=None):
    """mean ~ N(0, 4), y_i ~ N(mean, 1): the posterior and the evidence are Gaussian."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    numpyro.deterministic("twice", 2 * mean)
    numpyro.sample("y", dist.Normal(mean, 1.0).expand([3]), obs=y)


def test_of_a_conjugate_model_evidence_and_draws_are_exact():
    found = fit_numpyro(normal, model_kwargs={"y": ROWS}, **QUICK)
    cov = np.eye(3) + 4.0
    exact = -0.5 * ROWS @ np.linalg.solve(cov, ROWS)
    exact -= 0.5 * np.linalg.slogdet(2 * math.pi * cov).logabsdet
    low, high = found.posterior.summary.line("log Z").interval
    assert low - 1e-4 < exact < high + 1e-4
    draws = found.sample(4000, seed=2)
    precision = 3 + 1 / 4
    assert draws["mean"].mean() == pytest.approx(ROWS.sum() / precision, abs=0.05)
    assert draws["mean"].std() == pytest.approx(precision**-0.5, rel=0.05)
    assert np.allclose(draws["twice"], 2 * draws["mean"])
    chains = found.metropolis(100, chains=3)
    assert chains["mean"].shape == (3, 100)
    assert found.posterior.names == ("mean",)


def discrete():
    numpyro.sample("coin", dist.Bernoulli(0.5))
    numpyro.sample("mean", dist.Normal(0.0, 1.0))


def nothing():
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0)


@pytest.mark.parametrize(("model", "told"), [(discrete, "coin"), (nothing, "none")])
def test_models_without_continuous_sites_only_are_refused(model, told):
    with pytest.raises(ValueError, match=f"model: expected continuous latent sites; got .*{told}"):
        fit_numpyro(model, **QUICK)


def test_what_the_model_decides_is_refused():
    with pytest.raises(TypeError, match="names"):
        fit_numpyro(normal, names=["a"])
