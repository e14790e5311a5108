"""The sample study: its summary on cells made by hand, its plan, and one small real run."""

import dataclasses
import json
import math

import numpy as np
import pytest

from otflow.studies.members import Network
from otflow.studies.problems import DataProblem, make_problem
from otflow.studies.samples import SampleStudy, sample_study
from otflow.studies.samples_summary import summarise_samples
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import cell, evidence, failed, verdicts

SIZES = (100, 400, 1600, 6400)
ALPHA, P = 10.0, 8.0
SETTINGS = {"kind": "samples", "alpha": ALPHA, "sizes": list(SIZES), "problem": "x", "dim": 2}
SPREAD = "J_N -> J at fixed theta: spread ~ N^-1/2 (slope -0.5 to within 0.05)"
LOSS = "J(theta*) - J_N(theta_N) ~ 1/N (slope -1 to within 0.2)"
POPULATION = "J(theta_N) - J(theta*) ~ 1/N (slope -1 to within 0.2)"
ORDER = "E J_N(theta_N) <= class optimum <= E J(theta_N)"
SIZE = "both gaps are alpha p_eff / (2N) to first order, to within 20 %"


def gap(n):
    return ALPHA * P / (2 * n)


def optimum(c=0.5, p_eff=P):
    values = {"objective": 3.0, "objective_se": 1e-3, "p_eff": p_eff, "invalid": 0.0}
    known = {} if c is None else {"exact_rate_constant": c}
    return cell({"alpha": ALPHA}, values | known, id="optimum")


def spread(n, sd):
    values = {"sd": sd, "sd_se": 1e-4 * sd, "sets": 100.0}
    return cell({"spread_n": n}, values, id=f"spread,{n}")


def replicate(n, r, loss_gap, population_gap):
    values = {
        "loss": 3.0 - loss_gap,
        "loss_gap": loss_gap,
        "population": 3.0 + population_gap,
        "population_gap": population_gap,
        "population_gap_se": 1e-6 * abs(population_gap),
        "invalid": float(not math.isfinite(population_gap)),
    }
    return cell({"n": n, "replicate": r}, values, r)


def study(loss=-1.0, population=-1.0, sd=-0.5, noise=0.01, change=None, **of_optimum):
    """Exact power laws with two replicates, +- noise; `change` maps (n, r) to other gaps."""
    cells = [optimum(**of_optimum)]
    for n in SIZES:
        cells.append(spread(n, 3 * n**sd))
        for r in (0, 1):
            shift = 1 + noise * (2 * r - 1)
            gaps = [gap(100) * (n / 100) ** slope * shift for slope in (loss, population)]
            cells.append(replicate(n, r, *(change or {}).get((n, r), gaps)))
    return cells


def summary(cells, planned=None):
    return summarise_samples(SETTINGS, cells, planned)


class TestStatements:
    def test_everything_holds_for_exact_laws(self):
        assert verdicts(summary(study())) == dict.fromkeys(
            (SPREAD, LOSS, POPULATION, ORDER, SIZE), "holds"
        )

    @pytest.mark.parametrize(
        ("changes", "claim"),
        [({"sd": -0.3}, SPREAD), ({"loss": -0.5}, LOSS), ({"population": -1.5}, POPULATION)],
    )
    def test_another_rate_is_violated(self, changes, claim):
        found = verdicts(summary(study(**changes)))
        assert found[claim] == "violated"
        others = {SPREAD, LOSS, POPULATION} - {claim}
        assert {found[c] for c in others} == {"holds"}

    def test_replicates_far_apart_resolve_nothing(self):
        found = verdicts(summary(study(noise=0.9)))
        assert {found[c] for c in (LOSS, POPULATION, ORDER, SIZE)} == {"not resolved"}
        assert found[SPREAD] == "holds"

    def test_a_negative_gap_violates_the_order(self):
        change = {(400, r): (-0.01 - 1e-5 * r, gap(400)) for r in (0, 1)}
        found = summary(study(change=change))
        assert verdicts(found)[ORDER] == "violated"
        assert evidence(found, "E J_N").startswith("least certain gap -1.00e-02")

    @pytest.mark.parametrize(
        ("p_eff", "verdict"), [(P, "holds"), (1.1 * P, "holds"), (2 * P, "violated")]
    )
    def test_size_of_the_gaps(self, p_eff, verdict):
        """Within 20 % of what curvature and gradient noise say, at the largest N."""
        found = summary(study(noise=0.001, p_eff=p_eff))
        assert verdicts(found)[SIZE] == verdict
        assert evidence(found, "both gaps").startswith("N = 6400: mean gap gives p_eff = 8.0 +-")

    def test_usable_alpha(self):
        """sqrt(2 N c / p_eff): where bias and estimation balance."""
        rows = summary(study()).rows
        assert rows[0]["usable_alpha"] == pytest.approx(math.sqrt(2 * 100 * 0.5 / 8))
        assert rows[-1]["usable_alpha"] == pytest.approx(math.sqrt(2 * 6400 * 0.5 / 8))
        assert math.isnan(summary(study(p_eff=math.nan)).rows[0]["usable_alpha"])
        assert math.isnan(summary(study(c=None)).rows[0]["usable_alpha"])


class TestInfiniteObjective:
    """J(theta_N) is infinite where theta_N is not invertible at some fresh point."""

    def test_population_gap(self):
        found = summary(study(change={(400, 1): (gap(400), math.inf)}))
        assert "left out: N = 400" in evidence(found, "J(theta_N)")
        assert "J(theta_N) is infinite" in evidence(found, "E J_N")
        assert verdicts(found)[LOSS] == verdicts(found)[POPULATION] == "holds"
        assert found.rows[1]["invalid_replicates"] == 1
        assert found.rows[1]["population_gap"] == math.inf
        assert math.isnan(found.rows[1]["population_gap_error"])
        series = {s.name: s for s in found.series}
        assert series["population_gap"].x == [100, 1600, 6400]
        assert series["loss_gap"].x == list(SIZES)
        json.dumps(found.to_dict(), allow_nan=False)

    @pytest.mark.parametrize("bad", [math.inf, math.nan])
    def test_loss_gap(self, bad):
        """The class optimum itself is not invertible at a training row."""
        found = summary(study(change={(100, 0): (bad, bad)}))
        for claim in ("J(theta*)", "J(theta_N)"):
            assert "left out: N = 100" in evidence(found, claim)
        assert verdicts(found)[LOSS] == verdicts(found)[POPULATION] == "holds"
        assert verdicts(found)[ORDER] == "not resolved"
        series = {s.name: s for s in found.series}
        assert series["loss_gap"].x == [400, 1600, 6400]
        assert series["loss_gap"].exact == [gap(n) for n in SIZES[1:]]

    def test_everywhere(self):
        change = {(n, r): (gap(n), math.inf) for n in SIZES for r in (0, 1)}
        found = summary(study(change=change))
        assert verdicts(found)[POPULATION] == verdicts(found)[SIZE] == "not resolved"
        assert evidence(found, "J(theta_N)").startswith("fewer than two N can be used; ")
        assert verdicts(found)[LOSS] == "holds"

    def test_spread_that_is_not_known(self):
        """Data with too few rows for disjoint sets."""
        cells = [c for c in study() if "spread_n" not in c.inputs]
        found = summary(cells + [spread(n, math.nan) for n in SIZES])
        assert verdicts(found)[SPREAD] == "not resolved"
        assert math.isnan(found.rows[0]["sd"])


class TestCells:
    def test_table(self):
        found = summary(study(), planned=13)
        assert [row["n"] for row in found.rows] == list(SIZES)
        row = found.rows[0]
        assert set(found.columns) <= set(row)
        assert row["expected_gap"] == row["loss_gap"] == pytest.approx(0.4)
        assert row["loss"] == pytest.approx(2.6)
        assert row["population"] == pytest.approx(3.4)
        assert row["sd"] == pytest.approx(0.3)
        assert row["sd_error"] == pytest.approx(3e-5)
        assert (found.cells, found.planned, found.x_name) == (13, 13, "n")

    def test_series(self):
        found = {s.name: s for s in summary(study()).series}
        assert [(name, s.expected) for name, s in found.items()] == [
            ("sd", -0.5),
            ("loss_gap", -1.0),
            ("population_gap", -1.0),
        ]
        assert found["loss_gap"].slope == pytest.approx(-1, abs=1e-9)
        assert found["sd"].slope == pytest.approx(-0.5, abs=1e-9)
        assert found["loss_gap"].exact == [gap(n) for n in SIZES]

    def test_a_failed_replicate_is_listed_and_the_rest_is_used(self):
        gone = {"n": 400, "replicate": 1}
        cells = [c for c in study() if c.inputs != gone]
        found = summary([*cells, failed(gone, 1)])
        assert [error for _, error in found.failed] == ["diverged"]
        assert verdicts(found)[LOSS] == verdicts(found)[POPULATION] == "holds"
        assert found.rows[1]["loss_gap"] == pytest.approx(0.99 * gap(400))

    @pytest.mark.parametrize("ids", [(), ("optimum",)])
    def test_nothing_to_say_yet(self, ids):
        found = summary([c for c in study() if c.id in ids])
        assert (found.rows, found.statements, found.series) == ([], [], [])

    def test_without_the_optimum(self):
        found = summary([failed({"alpha": ALPHA}), spread(100, 0.3)])
        assert found.statements == []
        assert math.isnan(found.rows[0]["expected_gap"])


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"sizes": ()}, r"^sizes: expected at least one"),
            ({"sizes": (4, 8)}, r"^sizes: expected an integer >= 8; got 4"),
            ({"sizes": (16, 8)}, r"^sizes: expected increasing"),
            ({"replicates": (0, 0)}, r"^seeds: expected distinct integers"),
            ({"alpha": 0.0}, r"^alpha: expected a finite number > 0"),
            ({"starts": 0}, r"^starts: expected an integer >= 1"),
            ({"steps": 0}, r"^steps: expected an integer >= 1"),
            ({"sizes": (8, 100), "pool": 1599}, r"^pool: expected at least 16 \* 100; got 1599"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            SampleStudy(make_problem("gaussian", 1), **changes)

    def test_sizes_of_data_are_at_most_the_training_rows(self):
        problem = DataProblem(np.arange(40.0)[:, None])  # 12 are the population
        assert SampleStudy(problem, sizes=(8, 28)).sizes == (8, 28)
        with pytest.raises(ValueError, match=r"^sizes: expected at most 28, the training rows"):
            SampleStudy(problem, sizes=(8, 29))

    def test_every_field_is_in_the_settings(self):
        found = SampleStudy(make_problem("gaussian", 1)).settings()
        json.dumps(found, allow_nan=False)
        names = {f.name for f in dataclasses.fields(SampleStudy)} - {"problem"}
        assert set(found) == names | {"problem", "dim"}

    def test_training_sets_are_rows_of_their_own(self):
        problem = DataProblem(np.random.default_rng(0).standard_normal((60, 2)))
        study = SampleStudy(problem, sizes=(8, 20))
        a, b = (study.training_set(20, r) for r in (0, 1))
        rows = {tuple(row) for row in problem.rows}
        assert {tuple(row) for row in a} <= rows
        assert len({tuple(row) for row in a}) == 20
        assert not np.array_equal(a, b)
        np.testing.assert_array_equal(a, study.training_set(20, 0))


@pytest.fixture(scope="module")
def found():
    return sample_study(
        make_problem("gaussian", 1),
        sizes=(32, 128),
        replicates=(0, 1, 2),
        network=Network(width=4),
        starts=1,
        optimum=EnsembleConfig(first_order=0, natural=0),
        optimum_rows=1024,
        refine=5,
        steps=10,
        evaluation=1000,
        pool=4096,
    )


@pytest.mark.slow
class TestRealRun:
    def test_structure(self, found):
        assert found.failed == []
        assert found.cells == found.planned == 1 + 2 + 6
        assert set(verdicts(found)) == {SPREAD, LOSS, POPULATION, ORDER, SIZE}
        assert [row["n"] for row in found.rows] == [32, 128]

    def test_theta_n_fits_its_samples_better_than_the_optimum(self, found):
        for row in found.rows:
            assert row["loss_gap"] > 0

    def test_spread_at_fixed_theta(self, found):
        """sd ratio 2 from 1000 capped at 128 and 32 sets: relative error 0.14, 4 of them."""
        small, large = (row["sd"] for row in found.rows)
        assert 0.86 < small / large < 3.2
