"""The step study: its summary on cells made by hand, its plan, and one small real run."""

import dataclasses
import json
import math

import numpy as np
import pytest

from otflow.studies.members import Network
from otflow.studies.problems import DataProblem, make_problem
from otflow.studies.steps import StepStudy, step_study
from otflow.studies.steps_summary import summarise_steps
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import cell, evidence, failed, verdicts

RK4_STEPS, CONFORMING = (2, 4, 8, 16), (1, 2)
SETTINGS = {"kind": "steps", "problem": "x", "dim": 2}
ORDER = "rk4: the error of the nll falls like n_steps^-4 (slope -4 to within 0.2)"
ABOVE = "conforming: J >= J*_alpha at every number of steps"


def rk4(n, seed, error):
    return cell({"rk4": n, "seed": seed}, {"nll_error": error}, seed, f"rk4,{n},{seed}")


def conforming(k, seed, gap=0.01, invalid=0.0, se=1e-4):
    values = {"exact_objective": 2.0, "objective": 2.0 + gap, "objective_se": se, "kl": 0.1}
    values |= {"kl_se": 1e-5, "map_error": 0.2, "map_error_se": 1e-5, "invalid": invalid}
    return cell({"conforming": k, "seed": seed}, values, seed, f"conforming,{k},{seed}")


def study(slope=-4.0, noise=0.01, **changes):
    cells = [cell({"seed": 0}, {}, id="rk4,seed=0")]
    cells += [rk4(n, s, n**slope * (1 + noise * (2 * s - 1))) for n in RK4_STEPS for s in (0, 1)]
    return cells + [conforming(k, s, **changes) for k in CONFORMING for s in (0, 1)]


def summary(cells, planned=None):
    return summarise_steps(SETTINGS, cells, planned)


class TestStatements:
    def test_everything_holds(self):
        found = summary(study())
        assert verdicts(found) == {ORDER: "holds", ABOVE: "holds"}
        (series,) = found.series
        assert (series.name, series.expected, series.x) == ("nll_error", -4.0, list(RK4_STEPS))
        assert series.slope == pytest.approx(-4, abs=1e-9)

    @pytest.mark.parametrize(
        ("slope", "noise", "verdict"),
        [(-2.0, 0.01, "violated"), (-5.0, 0.01, "violated"), (-4.0, 0.9, "not resolved")],
    )
    def test_order(self, slope, noise, verdict):
        assert verdicts(summary(study(slope, noise)))[ORDER] == verdict

    @pytest.mark.parametrize(
        ("gap", "se", "verdict"),
        [(-0.01, 1e-4, "violated"), (0.01, 1.0, "not resolved"), (-0.01, 1.0, "not resolved")],
    )
    def test_above(self, gap, se, verdict):
        found = summary(study(gap=gap, se=se))
        assert verdicts(found)[ABOVE] == verdict
        assert f"{gap:.2e}" in evidence(found, "conforming")

    def test_points_that_are_not_invertible(self):
        """J is infinite there, and what is left out of it proves nothing."""
        found = summary(study(invalid=2.0))
        assert verdicts(found)[ABOVE] == "not resolved"
        assert evidence(found, "conforming").startswith("8 points at which")


class TestCells:
    def test_table(self):
        found = summary(study(), planned=13)
        assert [(r["scheme"], r["n_steps"]) for r in found.rows] == [
            *(("rk4", n) for n in RK4_STEPS),
            *(("conforming", k) for k in CONFORMING),
        ]
        assert found.rows[0]["nll_error"] == pytest.approx(2.0**-4)
        last = found.rows[-1]
        assert set(found.columns) <= set(last)
        assert last["nll_error"] == 0
        assert last["gap_percent"] == pytest.approx(0.5)
        assert (last["kl"], last["map_error"], last["invalid"]) == (0.1, 0.2, 0)
        assert (found.cells, found.planned, found.x_name) == (13, 13, "n_steps")

    def test_a_failed_cell_is_listed_and_the_rest_is_used(self):
        gone = {"rk4": 4, "seed": 0}
        found = summary([c for c in study() if c.inputs != gone] + [failed(gone)])
        assert [error for _, error in found.failed] == ["diverged"]
        assert verdicts(found)[ORDER] == "holds"

    @pytest.mark.parametrize("part", ["rk4", "conforming"])
    def test_one_half_only(self, part):
        found = summary([c for c in study() if part in c.inputs])
        assert set(verdicts(found)) == {ORDER if part == "rk4" else ABOVE}
        assert {r["scheme"] for r in found.rows} == {part}

    def test_nothing(self):
        found = summary([])
        assert (found.rows, found.statements, found.series) == ([], [], [])


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"rk4_steps": (4, 2)}, ValueError, r"^rk4_steps: expected increasing"),
            ({"conforming_steps": ()}, ValueError, r"^conforming_steps: expected at least one"),
            ({"rk4_steps": (2.5,)}, TypeError, r"^rk4_steps: expected an integer"),
            ({"seeds": ()}, ValueError, r"^seeds: expected distinct"),
            ({"alpha": math.inf}, ValueError, r"^alpha: expected a finite number"),
            ({"width": 0}, ValueError, r"^width: expected an integer >= 1"),
            ({"rows": 0}, ValueError, r"^rows: expected an integer >= 1"),
        ],
    )
    def test_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            StepStudy(make_problem("gaussian", 1), **changes)

    def test_data_are_refused(self):
        with pytest.raises(TypeError, match=r"^problem: expected an ExactProblem; got DataProblem"):
            StepStudy(DataProblem(np.arange(9.0)[:, None]))

    def test_every_field_is_in_the_settings(self):
        found = StepStudy(make_problem("gaussian", 1)).settings()
        json.dumps(found, allow_nan=False)
        names = {f.name for f in dataclasses.fields(StepStudy)} - {"problem"}
        assert set(found) == names | {"problem", "dim"}


@pytest.mark.slow
def test_a_real_run():
    """rk4 flows hardly trained: their error still falls by about 2^4 a doubling."""
    found = step_study(
        make_problem("gaussian", 1),
        rk4_steps=(1, 2),
        conforming_steps=(1,),
        seeds=(0,),
        rk4_network=Network(4, 1),
        rk4_config=EnsembleConfig(first_order=1, first_order_rows=16, natural=0),
        width=4,
        config=EnsembleConfig(first_order=0, natural=0),
        evaluation=1000,
        rows=100,
    )
    assert found.failed == []
    assert found.cells == found.planned == 1 + 2 + 1
    assert set(verdicts(found)) == {ORDER, ABOVE}
    coarse, fine, conforming = found.rows
    assert 5 < coarse["nll_error"] / fine["nll_error"] < 60
    assert conforming["exact_objective"] == make_problem("gaussian", 1).reference(10.0).objective
    assert abs(conforming["gap_percent"]) < 10  # 1,000 points
