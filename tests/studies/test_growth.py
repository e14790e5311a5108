"""The growth study: its statements on cells made by hand, its settings, and a real, tiny run."""

import pytest

from otflow.studies.growth import GrowthStudy, growth_study
from otflow.studies.growth_summary import summarise_growth
from otflow.studies.problems import make_problem
from otflow.training.growing import GrowthConfig
from tests.studies.fakes import cell, evidence, verdicts

SETTINGS = {"kind": "growth", "problem": "x", "dim": 2}
EXACT = "the price is the exact one at every delta"
LIMIT = "for large delta the price is 1/2 W2^2"
RATE = "the error of the growth falls like n^-1/2"


def cells(off=0.0, power=-0.5, error=1e-3):
    """Two seeds of two deltas and three sizes; the price of the smaller delta is `off`."""
    found = []
    for s in (0, 1):
        for delta, price in ((1.0, 0.8), (10.0, 0.99)):
            values = {"transport": price + (off if delta == 1 else 0), "transport_se": error}
            values |= {"miss": 0.0, "growth_error": 0.1, "map_error": 0.1}
            values |= {"exact_transport": price, "half_w2_squared": 1.0}
            found.append(cell({"delta": delta, "seed": s}, values, s))
        for n in (100, 400, 1600):
            values = {"transport": 1.0, "transport_se": error, "miss": 0.0, "map_error": 0.1}
            values |= {"growth_error": n**power * (1 + 0.01 * s), "exact_transport": 1.0}
            found.append(cell({"n": n, "seed": s}, values, s))
    return found


def test_everything_holds():
    found = summarise_growth(SETTINGS, cells(), None)
    assert verdicts(found) == {EXACT: "holds", LIMIT: "holds", RATE: "holds"}
    assert [row.get("delta", row.get("n")) for row in found.rows] == [1, 10, 100, 400, 1600]
    assert found.series[0].exact == [0.8, 0.99]


def test_a_wrong_price_and_a_wrong_rate_are_violated():
    found = summarise_growth(SETTINGS, cells(off=0.2, power=0.0), None)
    assert verdicts(found) == {EXACT: "violated", LIMIT: "holds", RATE: "violated"}
    assert "delta = 1" in evidence(found, EXACT)


def test_noise_resolves_nothing():
    found = summarise_growth(SETTINGS, cells(error=0.1), None)
    assert verdicts(found)[EXACT] == verdicts(found)[LIMIT] == "not resolved"


def test_before_the_first_cell():
    found = summarise_growth(SETTINGS, [], 4)
    assert (found.rows, found.statements, found.series) == ([], [], [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deltas": ()}, r"^deltas: expected at least one"),
        ({"deltas": (2.0, 1.0)}, r"^deltas: expected increasing"),
        ({"sizes": (2,)}, r"^sizes: expected an integer >= 3"),
        ({"delta": 0.0}, r"^delta: expected a finite number > 0"),
        ({"width": 0}, r"^width: expected an integer >= 1"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GrowthStudy(make_problem("gaussian", 1), **changes)


@pytest.mark.slow
def test_a_real_run():
    found = growth_study(
        make_problem("gaussian", 1),
        deltas=(2.0,),
        sizes=(50,),
        seeds=(0,),
        width=2,
        config=GrowthConfig(max_iter=2, plan_iter=2, batch_size=16),
        evaluation=100,
    )
    assert found.failed == []
    assert found.cells == found.planned == 2
    assert set(verdicts(found)) == {EXACT, LIMIT}
