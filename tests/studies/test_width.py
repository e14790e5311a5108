"""The width study: its summary on cells made by hand, its plan, and one small real run."""

import dataclasses
import json
import math

import numpy as np
import pytest

from otflow.studies.problems import DataProblem, make_problem
from otflow.studies.store import Store
from otflow.studies.width import WidthStudy, width_study
from otflow.studies.width_summary import summarise_width
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import cell, evidence, failed, verdicts

WIDTHS, FLOOR = (4, 8, 16), 2.0
SETTINGS = {"kind": "width", "problem": "x", "dim": 2}
CLASS = "a wider class reaches a smaller J (best of its starts)"
LOSS = "J_N(theta_N) falls with the width"
ABOVE = "J >= J*_alpha at every width"


def start(width, s, objective, se=1e-4):
    values = {"objective": objective, "objective_se": se, "exact_objective": FLOOR, "invalid": 0.0}
    return cell({"class": width, "start": s}, values, s, f"class,{width},{s}")


def fitted(width, seed, loss, population):
    values = {"loss": loss, "objective": population, "objective_se": 1e-4, "invalid": 3.0}
    return cell({"discrete": width, "seed": seed}, values, seed, f"discrete,{width},{seed}")


def study(best=None, se=1e-4, loss=None, change=None):
    """Gaps 1/width; losses 0.3 below, sets that differ by 0.5 but fall alike in every seed."""
    cells = []
    for width in WIDTHS:
        reached = FLOOR + 1 / width if best is None else best[width]
        cells += [start(width, 0, reached + 0.2, se), start(width, 1, reached, se)]
        for seed in (0, 1, 2):
            value = reached - 0.3 + 0.5 * seed + 1e-3 * seed / width
            if loss is not None:
                value = loss[width] + 0.01 * seed * width
            cells.append(fitted(width, seed, (change or {}).get((width, seed), value), reached))
    return cells


def summary(cells, planned=None):
    return summarise_width(SETTINGS, cells, planned)


class TestStatements:
    def test_everything_holds(self):
        assert verdicts(summary(study())) == dict.fromkeys((CLASS, LOSS, ABOVE), "holds")

    def test_a_wider_class_that_is_worse(self):
        found = summary(study(best={4: 2.5, 8: 2.1, 16: 2.3}))
        assert verdicts(found)[CLASS] == verdicts(found)[LOSS] == "violated"
        assert evidence(found, "a wider class").endswith("width 8 to 16")
        assert verdicts(found)[ABOVE] == "holds"

    def test_below_the_floor(self):
        found = summary(study(best={4: 2.5, 8: 2.1, 16: 1.9}))
        assert verdicts(found)[ABOVE] == "violated"
        assert evidence(found, "J >= J*").startswith("smallest gap -1.00e-01")
        assert "width 16" in evidence(found, "J >= J*")

    def test_large_errors_resolve_nothing(self):
        found = verdicts(summary(study(se=5.0)))
        assert found[CLASS] == found[ABOVE] == "not resolved"
        assert found[LOSS] == "holds"

    def test_losses_are_paired_by_seed(self):
        """Sample sets differ by more than widths do; the pairs decide."""
        assert verdicts(summary(study()))[LOSS] == "holds"
        found = verdicts(summary(study(loss={4: 2.0, 8: 1.9, 16: 1.85})))
        assert found[LOSS] == "not resolved"  # falls by 0.05 - 0.08 seed


class TestInfiniteObjective:
    def test_one_start(self):
        cells = [start(w, 2, math.inf, math.nan) for w in WIDTHS]
        found = summary(study() + cells)
        assert verdicts(found) == dict.fromkeys((CLASS, LOSS, ABOVE), "holds")
        assert found.rows[0]["class_best"] == pytest.approx(2.25)
        assert found.rows[0]["class_mean"] == math.inf
        json.dumps(found.to_dict(), allow_nan=False)

    def test_all_starts(self):
        best = {4: math.inf, 8: math.inf, 16: 2.1}
        found = summary([c for c in study(best) if "class" in c.inputs] + _discrete())
        assert verdicts(found)[CLASS] == verdicts(found)[ABOVE] == "not resolved"

    @pytest.mark.parametrize("widths", [(8,), (4, 8), WIDTHS])
    def test_loss(self, widths):
        found = summary(study(change={(w, 1): math.inf for w in widths}))
        assert verdicts(found)[LOSS] == "not resolved"
        assert "not invertible" in evidence(found, "J_N")


def _discrete():
    return [c for c in study() if "discrete" in c.inputs]


class TestCells:
    def test_table(self):
        found = summary(study(), planned=15)
        row = found.rows[0]
        assert [r["width"] for r in found.rows] == list(WIDTHS)
        assert set(found.columns) <= set(row)
        assert row["class_best"] == pytest.approx(2.25)
        assert row["class_mean"] == pytest.approx(2.35)
        assert row["class_gap_percent"] == pytest.approx(12.5)
        assert row["loss"] == pytest.approx(2.45 + 1e-3 / 4)
        assert row["population"] == pytest.approx(2.25)
        assert row["invalid"] == 9
        assert (found.cells, found.planned, found.x_name) == (15, 15, "width")

    def test_series(self):
        found = {s.name: s for s in summary(study()).series}
        assert list(found) == ["class optimum", "J_N(theta_N)", "J(theta_N)"]
        np.testing.assert_allclose(found["class optimum"].mean, [2.25, 2.125, 2.0625])
        assert found["class optimum"].exact == [FLOOR] * 3

    @pytest.mark.parametrize("seed", [0, 2])
    def test_a_failed_seed_is_listed_and_the_others_are_paired(self, seed):
        gone = {"discrete": 8, "seed": seed}
        found = summary([c for c in study() if c.inputs != gone] + [failed(gone, seed)])
        assert [error for _, error in found.failed] == ["diverged"]
        assert verdicts(found)[LOSS] == "holds"

    def test_no_seed_in_common(self):
        cells = [c for c in study() if c.inputs.get("discrete") != 8 or c.seed == 0]
        cells = [c for c in cells if c.inputs.get("discrete") != 4 or c.seed == 1]
        assert verdicts(summary(cells))[LOSS] == "not resolved"

    def test_before_the_discrete_losses(self):
        found = summary([c for c in study() if "class" in c.inputs])
        assert found.statements == []
        assert "loss" not in found.rows[0]


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"widths": (4, 4)}, r"^widths: expected increasing"),
            ({"widths": ()}, r"^widths: expected at least one"),
            ({"starts": 0}, r"^starts: expected an integer >= 1"),
            ({"seeds": (0, 0)}, r"^seeds: expected distinct"),
            ({"n": 0}, r"^n: expected an integer >= 1"),
            ({"alpha": -1.0}, r"^alpha: expected a finite number > 0"),
            ({"depth": -1}, r"^depth: expected an integer >= 0"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            WidthStudy(make_problem("gaussian", 1), **changes)

    def test_a_width_is_an_integer(self):
        with pytest.raises(TypeError, match=r"^width: expected an integer >= 1; got float"):
            WidthStudy(make_problem("gaussian", 1), widths=(4, 8.0))

    def test_data_are_refused(self):
        with pytest.raises(TypeError, match=r"^problem: expected an ExactProblem; got DataProblem"):
            WidthStudy(DataProblem(np.arange(9.0)[:, None]))

    def test_every_field_is_in_the_settings(self):
        found = WidthStudy(make_problem("gaussian", 1)).settings()
        json.dumps(found, allow_nan=False)
        names = {f.name for f in dataclasses.fields(WidthStudy)} - {"problem"}
        assert set(found) == names | {"problem", "dim"}


@pytest.mark.slow
def test_a_real_run_with_a_start_that_fails(tmp_path, monkeypatch):
    """One width; the better start is made to fail, so theta_N starts from the other."""
    import otflow.studies.runner

    calls = []

    def first(flow):
        calls.append(flow)
        return "made to fail" if len(calls) == 1 else None

    monkeypatch.setattr(otflow.studies.runner, "fault", first)
    found = width_study(
        make_problem("gaussian", 1),
        tmp_path / "study",
        widths=(3,),
        starts=2,
        seeds=(0,),
        n=250,
        config=EnsembleConfig(first_order=0, natural=0),
        steps=5,
        evaluation=500,
    )
    assert found.failed == [("class,width=3,start=0", "made to fail")]
    assert found.cells == found.planned == 3
    with Store.open(tmp_path / "study") as store:
        cells = {c.id: c.values for c in store.cells()}
    best, theta = cells["class,width=3,start=1"], cells["discrete,width=3,seed=0"]
    assert best["exact_objective"] == make_problem("gaussian", 1).reference(10.0).objective
    # the untrained network is within 1e-3 of the exact answer
    assert 0 <= best["objective"] - best["exact_objective"] < 1e-6
    assert theta["loss"] < best["objective"] + 0.5
