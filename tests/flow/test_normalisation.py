"""The integral of a density: a map that folds in closed form, and what users are told of it."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import otflow.estimator.fitting
from otflow import Flow, OTFlow, load
from otflow.flow.normalisation import (
    BY_CONSTRUCTION,
    NOT_MEASURED,
    Integral,
    density_integral,
    doubt,
    may_fold,
    told,
)
from otflow.potentials import GaussianBase
from otflow.potentials.base import AbstractPotential, GradientHessian
from otflow.schemes import RK4, Conforming
from tests.fakes import SMALL, no_training

RNG = np.random.default_rng(0)
PLAIN = SMALL | {"scheme": "conforming"}


class Fold(AbstractPotential):
    """One step is T(x) = x^3 - x: two branches have a positive slope, over |y| < 2 / sqrt(27)."""

    one: jnp.ndarray

    @property
    def dim(self):
        return 1

    def value(self, x, t):
        return (x**2 - x**4 / 4)[:, 0] * self.one

    def gradient(self, x, t):
        return jnp.concatenate([(2 * x - x**3) * self.one, jnp.zeros_like(x)], axis=1)

    def gradient_and_laplacian(self, x, t):
        raise NotImplementedError

    def gradient_and_hessian(self, x, t):
        return GradientHessian(self.gradient(x, t), ((2 - 3 * x**2) * self.one)[..., None])


class FoldGiven(Fold):
    """That under the condition 1, the identity under 0."""

    @property
    def condition_dim(self):
        return 1

    def given(self, condition):
        return Fold(jnp.asarray(condition))


def test_a_fold_counts_twice():
    """1 + P(|N(0, 1)| < 2 / sqrt(27)); within four standard errors, each below 0.02."""
    flow = Flow(Fold(jnp.ones(())), scheme=Conforming(1))
    rows = np.concatenate([RNG.normal(-1.2, 0.3, 500), RNG.normal(1.2, 0.3, 500)])[:, None]
    found = density_integral(flow, rows)
    truth = 2 * norm.cdf(2 / np.sqrt(27))
    assert found.standard_error < 0.02
    assert found.mean == pytest.approx(truth, abs=4 * found.standard_error)
    assert found.above_one
    grid = np.linspace(-3, 3, 60_001)[:, None]
    assert np.exp(np.asarray(flow.log_prob(grid))).sum() * 1e-4 == pytest.approx(truth, abs=1e-3)


def test_the_integral_of_a_conditional_density_is_that_of_the_rows_conditions():
    """Three quarters of the rows have the condition 1."""
    flow = Flow(FoldGiven(jnp.ones(())), scheme=Conforming(1))
    rows = np.concatenate([RNG.normal(-1.2, 0.3, 500), RNG.normal(1.2, 0.3, 500)])[:, None]
    given = np.tile([0.0, 1.0, 1.0, 1.0], 250)[:, None]
    found = density_integral(flow, rows, condition=given)
    truth = 0.25 + 0.75 * 2 * norm.cdf(2 / np.sqrt(27))
    assert found.standard_error < 0.03
    assert found.mean == pytest.approx(truth, abs=4 * found.standard_error)


def test_a_bijection_integrates_to_one():
    cov = np.array([[2.0, 0.5, 0], [0.5, 0.6, 0], [0, 0, 0.01]])
    flow = Flow(GaussianBase.solve(np.ones(3), cov, 30.0), scheme=Conforming(2))
    found = density_integral(flow, RNG.multivariate_normal(np.ones(3), cov, 400))
    assert found.standard_error < 0.05
    assert found.mean == pytest.approx(1, abs=4 * found.standard_error)
    assert not found.above_one


@pytest.mark.parametrize(
    ("value", "error", "resolved", "above"),
    [(1.5, 0.01, True, True), (1.5, 0.3, False, False), (1.01, 0.0, True, False)],
)
def test_what_it_says(value, error, resolved, above):
    found = Integral(value, error)
    assert (found.resolved, found.above_one) == (resolved, above)
    assert ("not resolved" in str(found)) is not resolved


def test_users_are_told(monkeypatch, tmp_path):
    """A warning in fit, score and sample; the figure in the attribute and the file."""
    no_training(monkeypatch)
    monkeypatch.setattr(
        otflow.estimator.fitting, "density_integral", lambda *_, **__: Integral(1.5, 0.01)
    )
    rows, warning = RNG.standard_normal((60, 2)), r"integrates to 1.5 \+- 0.02, not to 1.*0.41 nats"
    with pytest.warns(UserWarning, match=warning):
        model = OTFlow(**PLAIN | {"potential": "resnet"}).fit(rows)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.integral_ == model.integral_ == Integral(1.5, 0.01)
    for use in (again.score_samples, lambda x: again.sample(5)):
        with pytest.warns(UserWarning, match=warning) as found:
            use(rows)
        assert [w.filename for w in found] == [__file__]  # where the user stands
    stages = OTFlow(**PLAIN | {"potential": "convex"}).fit(rows)  # without a warning
    assert stages.integral_ is None
    assert doubt(stages.flow_, None) is None
    assert told(stages.flow_, None) == BY_CONSTRUCTION


def test_what_was_not_measured_says_so(monkeypatch, tmp_path):
    """A file that does not hold it, whose map may fold."""
    no_training(monkeypatch)
    rows = RNG.standard_normal((60, 2))
    model = OTFlow(**PLAIN | {"potential": "resnet"}).fit(rows)
    assert model.integral_ == Integral(1.0, 0.0)  # the tests' own, see conftest.py
    model.integral_ = None
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    for use in (again.score_samples, lambda x: again.sample(5)):
        with pytest.warns(UserWarning, match="may fold.* not measured: `certify` on rows"):
            use(rows)
    assert told(again.flow_, None) == NOT_MEASURED


def test_rk4_may_fold_whatever_it_integrates():
    base = GaussianBase.solve(np.zeros(2), np.eye(2), 30.0)
    assert may_fold(Flow(base, scheme=RK4(2)))
    assert doubt(Flow(base, scheme=RK4(2)), Integral(1.0, 0.01)) is None
    assert doubt(Flow(base, scheme=RK4(2)), Integral(1.5, 0.01)).startswith("the density integ")
