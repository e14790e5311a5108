"""A flow with growth: its density, costs and training, against exact Gaussians."""

import jax
import numpy as np
import pytest

from otflow.flow.flow import Flow
from otflow.flow.growing import GrowingFlow, GrowthTarget, evaluate_growth
from otflow.reference import wfr_gaussians
from otflow.support.precision import precision
from otflow.targets import GaussianMixture
from otflow.training.growing import GrowthConfig, cone_line, plan_pairs, train_growth

DELTA, MASS, VARIANCE = 1.0, 2.0, 0.25


@pytest.fixture(scope="module")
def exact():
    """N(0, 1/4) to 2 N(1, 1/4) on the line."""
    return wfr_gaussians([0.0], [1.0], [[VARIANCE]], delta=DELTA, mass_y=MASS)


@pytest.fixture(scope="module")
def flow():
    """At rest, one step, a few ridges."""
    with precision("float32"):
        start, end = (GaussianMixture([1.0], [[m]], [[[VARIANCE]]]) for m in (0.0, 1.0))
        return GrowingFlow.create(start, end, DELTA, 1, 4, jax.random.key(0), 1.0, MASS)


@pytest.fixture(scope="module")
def trained(flow):
    config = GrowthConfig(max_iter=150, plan_iter=150, batch_size=128, learning_rate=0.01)
    return train_growth(flow, config)


def test_at_rest_mass_grows_everywhere_alike(flow):
    x = np.linspace(-1, 1, 7)[:, None]
    found = flow.push(x)
    np.testing.assert_allclose(np.exp(found.log_mass), MASS, rtol=5e-3)  # nearly silent terms
    np.testing.assert_allclose(found.points, x, atol=5e-3)


@pytest.mark.slow
def test_training_comes_near_the_exact_answer(trained, exact):
    """The penalty alone keeps J some 1 % below; what is left is the training of a few seconds."""
    assert trained.status == "max_iter"
    assert trained.history["iteration"] == list(range(0, 151, 25))
    assert trained.history["val_nll"][-1] < trained.history["val_nll"][0]  # the miss
    found = evaluate_growth(trained.flow, 100.0, 4000)
    assert found.objective.mean == pytest.approx(exact.transport, abs=0.1)
    assert found.mass.mean == pytest.approx(MASS, abs=0.05)
    x = exact.sample(3, 500)
    pushed = trained.flow.push(x)
    grown = np.exp(exact.log_growth(x))
    assert np.average((pushed.points - exact.map(x))[:, 0] ** 2, weights=grown) < 0.003
    assert np.mean(abs(np.exp(pushed.log_mass) - grown)) < 0.2


@pytest.mark.slow
def test_the_density_that_arrives(trained):
    """Its integral is the mass, by quadrature; at the ends of rows it is theirs."""
    flow = trained.flow
    y = np.linspace(-3, 5, 801)[:, None]
    total = np.exp(flow.log_density(y).astype(float)).sum() * 0.01
    mass = evaluate_growth(flow, 100.0, 4000).mass
    assert total == pytest.approx(mass.mean, abs=4 * mass.standard_error + 1e-4)
    x = np.linspace(-0.5, 0.5, 5)[:, None]
    pushed = flow.push(x)
    own = np.asarray(flow.start.log_prob(x)) + pushed.log_mass - pushed.log_det
    np.testing.assert_allclose(flow.log_density(pushed.points), own, atol=1e-4)
    there = np.asarray(flow.end.log_prob(pushed.points)) + np.log(MASS)
    np.testing.assert_allclose(flow.target.log_ratio(x, pushed), own - there, atol=1e-4)
    assert (np.asarray(flow.target.miss(x, pushed)) >= 0).all()
    np.testing.assert_allclose(pushed.straightness, 0, atol=1e-4)  # one step is straight


def test_partners_of_a_plan_and_the_lines_to_them(flow, exact):
    x, y, growth = plan_pairs(flow, 0)
    middle = abs(x[:, 0]) < 0.3
    miss = y[middle] - exact.map(x[middle])
    assert abs(miss.mean()) < 0.1
    assert growth[middle].mean() == pytest.approx(exact.log_growth(x[middle]).mean(), abs=0.2)
    for time, end, mass in ((0.0, x, 0 * growth), (1.0, y, growth)):
        there, log_mass = cone_line(x, y, growth, DELTA, time)
        np.testing.assert_allclose(there, end, atol=1e-12)
        np.testing.assert_allclose(log_mass, mass, atol=1e-12)


def test_a_plan_lets_rows_without_partners_die():
    with precision("float32"):
        start = GaussianMixture([0.5, 0.5], [[0.0], [50.0]], np.full((2, 1, 1), 0.01))
        end = GaussianMixture([1.0], [[0.0]], [[[0.01]]])
        far = GrowingFlow.create(start, end, DELTA, 1, 1, jax.random.key(0))
        x, y, growth = plan_pairs(far, 0)
    away = x[:, 0] > 25
    np.testing.assert_array_equal(y[away], x[away])
    np.testing.assert_array_equal(growth[away], -6.0)
    assert growth[~away].mean() == pytest.approx(np.log(2), abs=0.2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": 0}, ValueError, "^alpha: expected a finite number > 0"),
        ({"beta": -1.0}, ValueError, "^beta: expected a finite number >= 0"),
        ({"max_iter": 1.5}, TypeError, "^max_iter: expected an integer >= 1"),
        ({"plan_iter": -1}, ValueError, "^plan_iter: expected an integer >= 0"),
        ({"batch_size": 0}, ValueError, "^batch_size: expected an integer >= 1"),
    ],
)
def test_settings_refused(change, error, message):
    with pytest.raises(error, match=message):
        GrowthConfig(**change)


def test_parts_that_disagree_are_refused(flow):
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2)])
    given = {"potential": flow.potential, "scheme": flow.scheme, "start": flow.start}
    with pytest.raises(ValueError, match=r"^end: expected dimension 1; got 2"):
        GrowingFlow(**given, end=plane)
    with pytest.raises(ValueError, match=r"^mass_y: expected a finite number > 0; got 0"):
        GrowingFlow(**given, end=flow.end, mass_y=0.0)
    with pytest.raises(ValueError, match=r"^scheme: expected one that keeps mass; got Growing"):
        Flow(flow.potential, flow.end, flow.scheme)


def test_components_of_the_end_are_drawn_together():
    with precision("float32"):
        start = GaussianMixture([1.0], [[0.0]], [[[1.0]]])
        end = GaussianMixture([0.5, 0.5], [[-3.0], [3.0]], np.ones((2, 1, 1)))
        target, y = GrowthTarget(start, end, 0.0), np.linspace(-4, 4, 5)[:, None]
        found, plain = target.merged(0.5).log_prob(y), target.log_prob(y)
        np.testing.assert_array_equal(found, end.merged(0.5).log_prob(y))
    assert abs(found - plain).max() > 0.1
