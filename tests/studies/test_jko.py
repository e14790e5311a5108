"""The JKO study: its summary on cells made by hand, and one small real run."""

import math

import numpy as np
import pytest

from otflow.studies.jko import JKOStudy, jko_study
from otflow.studies.jko_summary import summarise_jko
from otflow.studies.members import Network, Stages
from otflow.studies.problems import DataProblem, make_problem
from otflow.training.ensemble import EnsembleConfig
from tests.studies.fakes import cell, evidence, verdicts

SETTINGS = {"kind": "jko", "problem": "x", "dim": 2, "time": 1.0}
EXACT_ORDER = "the scheme follows the gradient flow at first order in tau (exact iterates)"
ORDER = "chains follow the gradient flow at first order in tau"
KL = "KL contracts: KL_(n+1) <= KL_n / (1 + tau)^2"
ENERGY = "energy: the sum of 1/2 W2^2 of the steps <= tau (KL_0 - KL_n)"
MINIMA = "every block is within 2 % of its exact proximal minimum"
EXACT = "exact iterates: KL and W2 contract, and the energy identity holds"


def values(tau, block, seed=0, **changes):
    """Numbers of a chain whose errors are the scheme's, and a thousandth of noise."""
    error = 0.3 * tau * (1 + 1e-3 * seed)
    return {
        "kl": math.exp(-2 * tau * block),
        "kl_se": 1e-4,
        "transport": 0.1,
        "transport_se": 1e-4,
        "contraction": 0.05,
        "contraction_se": 1e-3,
        "dissipation": 0.2,
        "dissipation_se": 1e-3,
        "gap": 0.005,
        "gap_se": 1e-4,
        "exact_objective": 1.0,
        "map_error": 0.1 * error,
        "flow_error": error,
        "exact_flow_error": 0.3 * tau,
        "exact_kl": math.exp(-2 * tau * block),
        "exact_contraction": 0.01,
        "exact_w2_contraction": 0.01,
        "exact_dissipation": 0.1,
    } | changes


def study(**changes):
    """Two taus, two seeds, all blocks; the changes are in the last block of the smallest tau."""
    return [
        cell(
            {"tau": tau, "block": b, "seed": s},
            values(tau, b, s, **(changes if (tau, b) == (0.25, 4) else {})),
            s,
        )
        for tau in (0.5, 0.25)
        for b in range(1, round(1 / tau) + 1)
        for s in (0, 1)
    ]


class TestStatements:
    def test_everything_holds(self):
        found = summarise_jko(SETTINGS, study(), None)
        assert set(verdicts(found).values()) == {"holds"}
        assert list(verdicts(found)) == [EXACT_ORDER, ORDER, KL, ENERGY, MINIMA, EXACT]
        assert [row["tau"] for row in found.rows] == [0.25, 0.5]
        assert [row["blocks"] for row in found.rows] == [4.0, 2.0]
        assert found.series[0].name == "flow_error"
        assert [series.x_name for series in found.series] == [None, "block", "block"]
        assert found.series[1].x == [1.0, 2.0, 3.0, 4.0]

    @pytest.mark.parametrize(
        ("changes", "claim", "verdict"),
        [
            ({"contraction": -0.05}, KL, "violated"),
            ({"contraction": 0.05, "contraction_se": 0.1}, KL, "not resolved"),
            ({"dissipation": -0.2}, ENERGY, "violated"),
            ({"gap": 0.05}, MINIMA, "violated"),
            ({"gap": 0.0199, "gap_se": 0.01}, MINIMA, "not resolved"),
            ({"gap": math.nan, "gap_se": math.nan}, MINIMA, "not resolved"),
            ({"exact_w2_contraction": -1e-6}, EXACT, "violated"),
            ({"exact_w2_contraction": -1e-12}, EXACT, "holds"),
            ({"map_error": 0.06}, ORDER, "not resolved"),
            ({"flow_error": 0.15}, ORDER, "violated"),
            ({"exact_flow_error": 0.05}, EXACT_ORDER, "not resolved"),
        ],
    )
    def test_one_block_that_is_off_is_seen(self, changes, claim, verdict):
        assert verdicts(summarise_jko(SETTINGS, study(**changes), None))[claim] == verdict

    def test_the_worst_block_is_named(self):
        found = summarise_jko(SETTINGS, study(gap=0.05), None)
        assert "farthest 5" in evidence(found, MINIMA)
        assert "tau = 0.25, block 4" in evidence(found, MINIMA)

    def test_a_chain_that_is_not_whole_has_no_order(self):
        found = summarise_jko(SETTINGS, study()[:-2], 12)
        assert verdicts(found)[ORDER] == "not resolved"
        assert verdicts(found)[KL] == "holds"

    def test_before_the_first_cell(self):
        found = summarise_jko(SETTINGS, [], 4)
        assert (found.rows, found.statements, found.series) == ([], [], [])


class TestStudy:
    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"taus": (0.3,)}, ValueError, r"^taus: expected whole parts of the time 1.0; got 0.3"),
            ({"taus": (0.5, 0.25)}, ValueError, r"^taus: expected .*increasing"),
            ({"taus": (4.0,)}, ValueError, r"^taus: expected whole parts"),
            ({"time": 0.0}, ValueError, r"^time: expected a finite number > 0"),
            ({"rows": 0}, ValueError, r"^rows: expected an integer >= 1"),
            ({"members": Stages()}, ValueError, r"^members: expected Stages of one step"),
            ({"members": Network()}, ValueError, r"^members: expected Stages of one step"),
        ],
    )
    def test_refused(self, changes, error, message):
        with pytest.raises(error, match=message):
            JKOStudy(make_problem("gaussian", 1), **changes)

    def test_data_are_refused(self):
        with pytest.raises(TypeError, match=r"^problem: expected an ExactProblem"):
            JKOStudy(DataProblem(np.arange(9.0)[:, None]))

    def test_every_block_waits_for_the_one_before(self):
        units = JKOStudy(make_problem("gaussian", 1), taus=(0.5, 1.0)).units()
        assert [u.name for u in units] == ["tau=1,block=1", "tau=0.5,block=1", "tau=0.5,block=2"]
        assert [u.after for u in units] == [(), (), ("tau=0.5,block=1",)]


@pytest.mark.slow
def test_a_real_run():
    """Of a normal law the Gaussian start is the exact step: all but rounding and draws is known."""
    found = jko_study(
        make_problem("gaussian", 1),
        taus=(0.5,),
        seeds=(0,),
        members=Stages(2, 1, 1, 2),
        config=EnsembleConfig(first_order=1, first_order_rows=16, natural=0, learning_rate=1e-6),
        rows=50_000,
        evaluation=2000,
        gap_rows=500,
    )
    assert found.failed == []
    assert found.cells == found.planned == 2
    (row,) = found.rows
    assert row["kl"] == pytest.approx(row["exact_kl"], rel=0.03)
    assert row["map_error"] < 0.03
    assert row["gap_percent"] < 0.1
    assert verdicts(found)[EXACT] == verdicts(found)[MINIMA] == "holds"
