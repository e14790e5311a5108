"""What flows cost, against the closed form of a Gaussian problem solved exactly."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.flow.flow import Flow
from otflow.potentials import GaussianBase
from otflow.potentials.base import GradientHessian
from otflow.reference import gaussian
from otflow.schemes import Conforming
from otflow.studies.members import Network, fault, measure, point_objective, train_members
from otflow.studies.problems import DataProblem, make_problem
from otflow.support.precision import precision
from otflow.training.ensemble import EnsembleConfig
from tests.fakes import Translation
from tests.studies.fakes import COV, MEAN, exact_flow


class TestNetwork:
    def test_starts_at_the_exact_answer_for_the_moments(self):
        """Up to the network's quadratic term, which starts at A = 0.01."""
        problem, x = make_problem("gaussian", 2), np.random.default_rng(0).standard_normal((50, 2))
        flow = Network(5, 1, n_steps=1).start(problem, 7.0, seed=3)
        np.testing.assert_allclose(flow.forward(x), problem.reference(7.0).map(x), atol=5e-4)
        assert flow.potential.terms[1].width == 5
        assert flow.scheme == Conforming(1)
        assert flow.forward(x).dtype == jnp.float64

    def test_seeds_make_different_networks(self):
        problem = make_problem("gaussian", 1)
        a, b = (Network(3).start(problem, 7.0, seed).potential.terms[1] for seed in (0, 1))
        assert not np.allclose(a.weights[0], b.weights[0])

    @pytest.mark.parametrize("changes", [{"width": 0}, {"depth": -1}, {"n_steps": 0}])
    def test_refuses(self, changes):
        (name,) = changes
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer >= "):
            Network(**changes)


class TestMeasure:
    """100,000 points; seven figures within 4.5 standard errors: fails by chance 5 in 100,000."""

    alpha = 10.0

    @functools.cached_property
    def found(self):
        problem = make_problem("gaussian", 2)
        return measure(exact_flow(self.alpha), problem, self.alpha, 100_000, seed=5)

    def test_costs_of_the_optimum(self):
        exact, found = gaussian(MEAN, COV, self.alpha), self.found
        expected = {
            "transport": exact.transport,
            "kl": exact.kl,
            "objective": exact.objective,
            "limit_estimate": exact.transport + 2 * self.alpha * exact.kl,
        }
        for name, value in expected.items():
            error = found[f"{name}_se"]
            assert abs(found[name] - value) <= 4.5 * error + 1e-12
            assert error < 0.01 * value  # or the interval says nothing
        assert (found["invalid"], found["n"]) == (0, 100_000)

    def test_distance_to_the_maps(self):
        """T_alpha = mu1 + s/sig (x - mu0) against the OT map with mu1 = 0, s = 1."""
        sig = np.sqrt(np.diag(COV))
        s = (sig + np.sqrt(sig**2 + 4 * self.alpha * (1 + self.alpha))) / (2 * (1 + self.alpha))
        exact = math.sqrt(((s - 1) ** 2).sum() + ((MEAN / (1 + self.alpha)) ** 2).sum())
        assert self.found["map_error"] < 1e-12
        error = self.found["ot_error_se"]
        assert 0 < error < 0.02 * exact
        assert abs(self.found["ot_error"] - exact) < 4.5 * error

    def test_a_flow_that_is_off_by_a_translation(self):
        """Every point is moved too far by the shift: that is its distance to the exact map."""
        problem, shift = make_problem("gaussian", 2), np.array([0.3, -0.4])
        with precision("float64"):
            potential = GaussianBase.solve(MEAN, COV, 10.0) + Translation(jnp.asarray(shift))
        found = measure(Flow(potential, scheme=Conforming(1)), problem, 10.0, 1000, seed=0)
        assert found["map_error"] == pytest.approx(0.5, rel=1e-9)
        assert found["map_error_se"] < 1e-9
        assert found["objective"] > problem.reference(10.0).objective

    def test_rows_of_a_data_problem(self):
        """The held-out rows, every figure by hand."""
        rows = np.random.default_rng(1).standard_normal((40, 2))
        problem, shift = DataProblem(rows), np.array([1.0, -2.0])
        found = measure(Flow(Translation(shift), scheme=Conforming(1)), problem, 3.0, 999, seed=0)
        x = problem.population
        nll = 0.5 * ((x + shift) ** 2).sum(axis=1) + math.log(2 * math.pi)
        assert found["n"] == len(x) == 12
        assert found["invalid"] == 0
        assert found["transport"] == pytest.approx(2.5)
        assert found["transport_se"] == pytest.approx(0.0, abs=1e-7)
        assert found["nll"] == pytest.approx(nll.mean(), rel=1e-6)
        assert found["nll_se"] == pytest.approx(nll.std(ddof=1) / math.sqrt(12), rel=1e-5)
        assert found["objective"] == pytest.approx(2.5 + 3 * nll.mean(), rel=1e-6)


class Folding(Translation):
    """T(x) = x + shift where x_1 < 1; beyond that the Hessian is 2 I: not invertible."""

    def gradient_and_hessian(self, x, t):
        found = super().gradient_and_hessian(x, t)
        bad = 2.0 * jnp.eye(self.dim) * (x[:, 0] >= 1)[:, None, None]
        return GradientHessian(found.gradient, found.hessian + bad)


class TestPointObjective:
    def test_by_hand(self):
        x = np.random.default_rng(2).standard_normal((30, 2))
        shift = np.array([1.0, -2.0])
        with precision("float64"):
            flow = Flow(Translation(jnp.asarray(shift)), scheme=Conforming(1))
        nll = 0.5 * ((x + shift) ** 2).sum(axis=1) + math.log(2 * math.pi)
        np.testing.assert_allclose(point_objective(flow, x, 4.0), 2.5 + 4 * nll, rtol=1e-12)

    def test_infinite_where_the_map_is_not_invertible(self):
        x = np.array([[0.0, 0.0], [1.5, 0.0], [-3.0, 1.0]])
        flow = Flow(Folding(jnp.zeros(2)), scheme=Conforming(1))
        found = point_objective(flow, x, 4.0)
        assert found[1] == math.inf
        assert np.isfinite(found[[0, 2]]).all()

    def test_measure_counts_such_rows(self):
        rows = np.linspace(0, 2, 40)[:, None] * np.ones(2)
        problem = DataProblem(rows)
        found = measure(Flow(Folding(jnp.zeros(2)), scheme=Conforming(1)), problem, 1.0, 10, 0)
        good = problem.population[:, 0] < 1
        assert 0 < found["invalid"] == (~good).sum() < len(good)
        nll = 0.5 * (problem.population[good] ** 2).sum(axis=1) + math.log(2 * math.pi)
        assert found["nll"] == pytest.approx(nll.mean(), rel=1e-6)


def test_fault():
    good, bad = (Flow(Translation(jnp.array([0.0, v])), scheme=Conforming(1)) for v in (1, np.inf))
    assert fault(good) is None
    assert fault(bad) == "a trained parameter is not finite"


class TestTrainMembers:
    """One Adam step each: which points they see."""

    config = EnsembleConfig(first_order=1, first_order_rows=64, natural=0)

    def trained(self, problem, seeds=(0, 1), data=None):
        starts = [Network(2).start(problem, 3.0, 0)] * len(seeds)
        flows = train_members(starts, problem, [3.0] * len(seeds), seeds, self.config, data)
        return [np.concatenate([a.ravel() for a in jax.tree.leaves(f.potential)]) for f in flows]

    def test_fresh_points_differ_by_seed(self):
        a, b, again = self.trained(make_problem("gaussian", 1), (0, 1, 0))
        assert not np.allclose(a, b)
        np.testing.assert_allclose(a, again, rtol=1e-12)

    def test_a_data_problem_trains_on_its_rows(self):
        problem = DataProblem(np.random.default_rng(3).exponential(size=(60, 1)))
        ours = self.trained(problem)  # fewer rows than a batch: all of them, for every seed
        np.testing.assert_allclose(*ours, rtol=1e-12)
        same, other = self.trained(problem, data=np.stack([problem.rows, problem.rows + 1]))
        np.testing.assert_allclose(ours[0], same, rtol=1e-12)
        assert not np.allclose(ours[0], other)
