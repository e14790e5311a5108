"""`OTFlow.summary`: figures against closed forms, verdicts where the truth is known."""

import dataclasses
import json

import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

import otflow.estimator.fitting
from otflow import OTFlow
from otflow.certificates.baselines import baselines
from otflow.certificates.calibration import coverages, marginal_p_values
from otflow.certificates.course import Course
from otflow.certificates.summary import Compared
from otflow.data.preprocessing import ColumnMap
from otflow.data.quirks import quirks
from tests.fakes import SMALL, no_training, untrained
from tests.models import CONDITIONED, CONDITIONS, FRAME, MOONS

RNG = np.random.default_rng(0)
COV = np.array([[2.0, 0.6], [0.6, 0.5]])
GAUSS = RNG.multivariate_normal([3.0, -1.0], COV, 1500)


@pytest.fixture(scope="module")
def gaussian():
    """The exact flow between Gaussians, untrained, and its summary on rows it has not seen."""
    with pytest.MonkeyPatch.context() as patch:
        no_training(patch)
        flow = OTFlow(**{**SMALL, "alpha": 1e4, "scheme": "conforming"}).fit(GAUSS[:1000])
    return flow, flow.summary(GAUSS[1000:], X_train=GAUSS[:1000])


def test_an_exact_density(gaussian):
    """What is true is said: entropy, calibration, equal laws, and no gain over a Gaussian."""
    _, found = gaussian
    entropy = stats.multivariate_normal(cov=COV).entropy()
    assert found.nll_interval[0] < entropy < found.nll_interval[1]
    first, second = found.compared
    assert first.verdict != "better"
    assert abs(first.gain) < 0.02  # the base has the moments of the same rows
    assert first.nll == pytest.approx(found.nll + first.gain)
    assert second.verdict in ("better", "not resolved")
    assert all(c.consistent for c in found.coverage)
    assert found.test.p_value > 0.01
    assert found.worst_p_value > 0.01
    assert found.round_trip < 1e-4
    assert found.without_density == 0
    assert not [text for text in found.findings if "may do as well" not in text]


def test_every_face_says_the_same(gaussian):
    _, found = gaussian
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["verdict"] == found.verdict
    assert [c["verdict"] for c in kept["compared"]] == [c.verdict for c in found.compared]
    assert set(kept) == {f.name for f in dataclasses.fields(found)} | {"verdict"}
    for text in (str(found), found._repr_html_()):
        for what in ("held-out nll", "two-sample test", "round trip", "integral of the density"):
            assert what in text
    assert str(found).startswith(found.verdict)
    assert max(map(len, str(found).split("\n\n", 1)[1].splitlines())) <= 100


def test_what_the_table_says_of_a_worse_flow_and_of_an_early_end(gaussian):
    """No "lower by -2": the gain has its own word. A slope is told where it could go on only."""
    _, found = gaussian
    worse = Compared("Gaussian", 1.0, -2.0, (-2.5, -1.5), "told")
    early = Course("early_stopping", 10, 20, -2e7, False, 0.0)
    rows = dataclasses.replace(found, compared=(worse,), course=early).rows
    assert rows[1] == ("nll of a Gaussian", "1.00 nats",
                       "flow worse: higher by 2.000 [1.500, 2.500]; told")  # fmt: skip
    assert rows[-1] == ("training", "step 10 kept of 20", "stopped early")
    going = dataclasses.replace(early, status="max_iter", slope=-0.5)
    told = dataclasses.replace(found, course=going).rows[-1][2]
    assert told == "all steps were taken; nll -0.5 nats per 1,000 steps at the end"


def test_a_wrong_density_is_found(gaussian):
    """Rows of another law: shifted, wider, and one column's own distribution far off."""
    flow, _ = gaussian
    other = GAUSS[1000:] * [1.0, 3.0]
    found = flow.summary(other)
    assert [c.verdict for c in found.compared] == ["worse", "worse"]
    assert found.worst_column == "x1"
    told = " ".join(found.findings)
    for what in ("worse than a Gaussian", "too narrow", "two-sample", "column x1 is off"):
        assert what in told
    assert found.verdict.startswith(f"{len(found.findings)} findings")


@pytest.mark.slow
def test_columns_with_bounds_and_steps(trained):
    """The units' derivative is in the nll: that of rows with noise over their cells."""
    flow = trained("mapped columns")
    found = flow.summary(FRAME)
    assert found.nll == pytest.approx(-flow.score(FRAME), abs=0.1)
    outside = pandas.concat([FRAME, FRAME[:10] * [-1.0, 1.0]])
    found = flow.summary(outside)
    assert found.without_density == 10
    assert "10 of 310 rows have no density" in found.findings


@pytest.mark.slow
def test_a_conditional_flow(trained):
    flow = trained("conditional")
    found = flow.summary(CONDITIONED, condition=CONDITIONS, X_train=CONDITIONED,
                         condition_train=CONDITIONS)  # fmt: skip
    x = np.column_stack([np.ones(200), CONDITIONS])
    left = CONDITIONED - x @ np.linalg.lstsq(x, CONDITIONED, rcond=None)[0]
    by_hand = stats.multivariate_normal(cov=left.T @ left / 199).logpdf(left).mean()
    assert found.compared[0].nll == pytest.approx(-by_hand, abs=1e-4)  # a linear regression
    with pytest.raises(ValueError, match=r"^condition: expected"):
        flow.summary(CONDITIONED)


def test_bad_input(gaussian):
    flow, _ = gaussian
    with pytest.raises(ValueError, match=r"^X: expected at least 40 rows; got 39"):
        flow.summary(GAUSS[:39])
    with pytest.raises(ValueError, match=r"^condition: expected none"):
        flow.summary(GAUSS, condition=GAUSS)
    with pytest.raises(ValueError, match=r"^condition_train: expected none"):
        flow.summary(GAUSS, condition_train=GAUSS)


def test_coverage_of_uniform_ranks():
    """Exchangeable rows and draws: shares near the level; of a law too narrow: below it."""
    rows, draws = RNG.standard_normal(2000), RNG.standard_normal(8000)
    log_prob, drawn = -(rows**2), -(draws**2)
    assert all(c.consistent for c in coverages(log_prob, drawn))
    narrow = coverages(log_prob, -((0.7 * draws) ** 2))
    assert all(not c.consistent and c.share < c.level for c in narrow)
    own = -(RNG.standard_normal((99, 2000)) ** 2)
    for c in coverages(log_prob, own):
        assert c.consistent
        exact = ((own > log_prob).sum(axis=0) < round(100 * c.level)).mean()
        assert c.share == exact
    lost = coverages(np.full(100, -np.inf), drawn)
    assert [c.share for c in lost] == [0.0, 0.0]


def test_ranks_of_columns():
    rows = RNG.standard_normal((400, 2))
    shifted = RNG.standard_normal((99, 400, 2)) + np.array([0.0, 0.5])
    good, bad = marginal_p_values(rows, shifted)
    assert good > 0.01 > bad
    good, bad = marginal_p_values(rows, shifted.reshape(-1, 2))
    assert good > 0.01 > bad


def test_a_baseline_never_sees_the_rows_it_scores():
    """Of rows that are all far apart, one more component a row would score its own row best."""
    x = RNG.standard_normal((60, 3))
    gauss, mixture = baselines(x, None)
    own = stats.multivariate_normal(x.mean(axis=0), np.cov(x, rowvar=False)).logpdf(x).mean()
    assert gauss.log_prob.mean() < own
    assert mixture.log_prob.mean() < own + 0.1
    few, left_out = baselines(x[:4], None)
    assert few.log_prob is None
    assert "too few" in few.told
    assert left_out.log_prob is None


def course(val, train=None, status="max_iter", kept=None):
    steps = [25 * i for i in range(len(val))]
    kept = steps[int(np.argmin(val))] if kept is None else kept
    history = {"iteration": steps, "val_nll": val, "train_nll": val if train is None else train}
    return Course.of(history, status, kept)


def test_still_falling():
    falling = course([3.0, 2.0, 1.5, 1.2, 1.0])
    assert falling.falling
    assert -13.0 < falling.slope < -6.0  # nats per 1,000 steps, between the last two and the four
    assert "raise max_iter" in falling.warning
    flat = 1.0 + 0.002 * np.random.default_rng(1).standard_normal(40)
    assert not course(flat.tolist()).falling
    assert not course([3.0, 2.0, 1.5, 1.2, 1.0], status="early_stopping").falling
    assert np.isnan(course([3.0, 2.0, 1.0]).slope)
    assert course([3.0, 2.0, 1.0]).warning is None
    slow = (1.0 - 1e-4 * np.arange(20)).tolist()  # sure, but worth nothing
    assert not course(slow).falling


def test_learned_by_heart():
    val = [3.0, 2.0, 2.1, 2.2, 2.4, 2.6]
    found = course(val, train=[3.0, 2.0, 1.5, 1.2, 1.0, 0.8], status="early_stopping")
    assert found.rise == pytest.approx(0.4)
    assert any(text.startswith("overfits after step 25:") for text in found.findings())
    assert not course(val, train=[3.0, 2.0, 2.1, 2.2, 2.4, 2.6]).findings()


def test_fit_warns(monkeypatch):
    def fell(*args, **kwargs):
        result = untrained(*args, **kwargs)
        steps, nll = [0, 25, 50, 75, 100], [3.0, 2.0, 1.5, 1.2, 1.0]
        history = {name: values * 5 for name, values in result.history.items()}
        history |= {"iteration": steps, "val_nll": nll}
        return dataclasses.replace(result, history=history, best_iteration=100)

    monkeypatch.setattr(otflow.estimator.fitting, "train", fell)
    with pytest.warns(ConvergenceWarning, match=r"^max_iter: .* at step 100, by .* nats per 1,000"):
        OTFlow(**SMALL).fit(GAUSS)


def test_quirks_by_name():
    n = 500
    zeros = np.where(RNG.random(n) < 0.3, 0.0, RNG.standard_normal(n))
    X = np.column_stack([
        RNG.standard_normal(n), RNG.integers(3, size=n), RNG.poisson(30, n), zeros,
        RNG.standard_cauchy(n) ** 3, RNG.standard_normal(n).round(1),
    ])  # fmt: skip
    names = ["good", "kind", "count", "rain", "heavy", "tenths"]
    few, rounded, mass, tail = quirks(X, names, ColumnMap.identity(6))
    assert few.startswith("column(s) kind (3 values) hold 10 values or fewer")
    assert rounded.startswith("column(s) count (step 1), tenths (step 0.1) are")
    assert mass.startswith(f"column(s) rain ({100 * np.mean(zeros == 0):.3g}% at 0) have")
    assert tail.startswith("column(s) heavy have very heavy tails, easier to fit with arcsinh=")
    mapped = ColumnMap((None,) * 6, (None,) * 6, (0.0,) * 6, (*[None] * 4, (0.0, 1.0), None))
    assert [told[:20] for told in quirks(X, names, mapped)] == [
        told[:20] for told in (few, rounded, mass)
    ]
    known = ColumnMap((None,) * 6, (None,) * 4 + (1e9, None), (0.0, 1.0, 1.0, 0.0, 0.0, 0.1))
    assert len(quirks(X, names, known)) == 1
    assert quirks(MOONS, ["a", "b"], ColumnMap.identity(2)) == ()
    (many,) = quirks(RNG.integers(2, size=(50, 20)), list("abcdefghijklmnopqrst"),
                     ColumnMap.identity(20))  # fmt: skip
    assert "h (2 values) and 12 more hold" in many
    (ended,) = quirks(np.exp(3 * RNG.standard_normal((n, 1))), ["flux"], ColumnMap.identity(1))
    assert ended.startswith("column(s) flux (all above 0) have very heavy tails")


def test_a_sign_for_what_is_missing_is_no_tail():
    """-999 among numbers or integers, also where the fit knows of the steps; counts stay counts."""
    X = np.column_stack(
        [RNG.standard_normal(500), RNG.poisson(30, 500), RNG.poisson(0.7, 500) ** 4]
    )
    assert len(quirks(X, ["level", "count", "bursts"], ColumnMap.identity(3))) == 2
    X[:25, :2] = -999
    told = quirks(X, ["level", "count", "bursts"], ColumnMap.identity(3))
    alone = "column(s) level (5% at -999), count (5% at -999) have many rows on one value"
    assert next(text for text in told if "one value" in text).startswith(alone)
    assert not any("tails" in text for text in told)
    known = ColumnMap((None,) * 3, (None,) * 3, (0.0, 1.0, 1.0))
    assert [text[:60] for text in quirks(X, ["level", "count", "bursts"], known)] == [alone[:60]]
