"""The density study: its summary on cells made by hand, its quadrature, and one small real run."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from otflow import Flow
from otflow.potentials import GaussianBase
from otflow.schemes import Conforming
from otflow.studies.density import DensityStudy, density_study, integral
from otflow.studies.density_summary import summarise_density
from otflow.studies.members import Stages
from otflow.studies.problems import DataProblem, make_problem
from otflow.training.ensemble import EnsembleConfig
from tests.flow.test_normalisation import Fold
from tests.studies.fakes import cell, evidence, verdicts

SETTINGS = {"kind": "density", "problem": "x", "dim": 2}
ONE = "the density integrates to one, on its way too, to within 0.02"
BELOW = "KL >= 0: no density is above the truth on average"


def study(*last, integral_se=1e-4, kl=0.1):
    """Two seeds after 10 steps, whose integrals are one, and others after 100."""
    values = {"integral_se": integral_se, "kl": kl, "kl_se": 0.01, "invalid": 0.0}
    cells = [cell({"steps": 10, "seed": s}, values | {"integral": 1.0}, s) for s in (0, 1)]
    return cells + [
        cell({"steps": 100, "seed": s}, values | {"integral": total}, s)
        for s, total in enumerate(last)
    ]


class TestStatements:
    def test_everything_holds(self):
        found = summarise_density(SETTINGS, study(1.01, 0.99), None)
        assert verdicts(found) == {ONE: "holds", BELOW: "holds"}
        assert [series.name for series in found.series] == ["integral", "kl"]
        assert [row["steps"] for row in found.rows] == [10, 100]

    def test_one_density_that_is_none_is_not_hidden_by_the_mean(self):
        found = summarise_density(SETTINGS, study(1.1, 0.9), None)
        assert verdicts(found)[ONE] == "violated"
        assert "after 100 steps" in evidence(found, ONE)

    def test_noise_resolves_nothing(self):
        found = summarise_density(SETTINGS, study(1.0, integral_se=0.1, kl=0.005), None)
        assert verdicts(found) == {ONE: "not resolved", BELOW: "not resolved"}

    def test_above_the_truth(self):
        assert verdicts(summarise_density(SETTINGS, study(kl=-0.1), None))[BELOW] == "violated"

    def test_before_the_first_cell(self):
        found = summarise_density(SETTINGS, [], 4)
        assert (found.rows, found.statements, found.series) == ([], [], [])


class TestIntegral:
    @pytest.mark.parametrize("d", [1, 2])
    def test_a_bijection(self, d):
        mean, cov = np.full(d, 3.0), np.diag(np.geomspace(0.01, 100.0, d))
        flow = Flow(GaussianBase.solve(mean, cov, 30.0), scheme=Conforming(2))
        total, error = integral(flow, mean, cov)
        assert total == pytest.approx(1, abs=1e-5)
        assert error < 1e-5

    def test_a_fold_counts_twice(self):
        """Known in closed form: 1 + P(|N(0, 1)| < 2 / sqrt(27)); the density jumps at folds."""
        flow = Flow(Fold(jnp.ones(())), scheme=Conforming(1))
        total, _ = integral(flow, np.zeros(1), np.ones((1, 1)))
        assert total == pytest.approx(2 * norm.cdf(2 / np.sqrt(27)), abs=5e-3)


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"steps": ()}, ValueError, r"^steps: expected at least one"),
            ({"steps": (10, 5)}, ValueError, r"^steps: expected increasing"),
            ({"steps": (1.5,)}, TypeError, r"^steps: expected an integer"),
            ({"alpha": 0}, ValueError, r"^alpha: expected a finite number > 0"),
            ({"evaluation": 0}, ValueError, r"^evaluation: expected an integer >= 1"),
        ],
    )
    def test_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            DensityStudy(make_problem("gaussian", 1), **changes)

    def test_data_are_refused(self):
        with pytest.raises(TypeError, match=r"^problem: expected an ExactProblem"):
            DensityStudy(DataProblem(np.arange(9.0)[:, None]))

    def test_stages_have_sizes(self):
        with pytest.raises(ValueError, match=r"^groups: expected an integer >= 1"):
            Stages(groups=0)


def test_a_real_run():
    """Stages after one step and after two: densities, whatever they are worth."""
    found = density_study(
        make_problem("mixture", 1),
        steps=(1, 2),
        seeds=(0,),
        members=Stages(2, 1, 1, 2),
        config=EnsembleConfig(first_order_rows=16, natural=0),
        evaluation=1000,
    )
    assert found.failed == []
    assert found.cells == found.planned == 2
    assert verdicts(found) == {ONE: "holds", BELOW: "holds"}
