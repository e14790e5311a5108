"""The arithmetic of the benchmarks on maps, populations and tables."""

import functools
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # its modules are scripts, no part of the package

import between  # noqa: E402
import tabular  # noqa: E402
import w2  # noqa: E402
from maps import ours  # noqa: E402
from maps.base import LEAGUES, Maps, Task  # noqa: E402
from otflow import OTFlow  # noqa: E402
from otflow.certificates import DualConfig, bracket_pairs  # noqa: E402
from otflow.datasets import MapPair, Table  # noqa: E402
from otflow.training import dual, plan  # noqa: E402
from timing import budget  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture
def pair():
    """N(0, I) and its image under x -> m + A x, A symmetric positive definite."""
    A, m = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([3.0, -1.0])
    x = RNG.standard_normal((3, 20_000, 2))
    y = x @ A + m
    parts = (np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    return MapPair(*parts, x[0], y[1], x[2], y[2], 0.0, float(np.trace(A @ A)))


def test_scores_of_known_errors(pair):
    """The truth scores 0 and 1; a constant shift e scores 100 e^2 / variance."""
    shifted = Maps(lambda x: pair.y_test, lambda y: pair.x_test + np.array([0.3, 0.0]))
    found = w2.scores(pair, shifted)
    assert found["uvp P to Q"] == 0
    assert found["cosine P to Q"] == pytest.approx(1)
    assert found["uvp Q to P"] == pytest.approx(100 * 0.09 / 2, rel=0.03)
    assert found["cosine Q to P"] < 1


def test_the_linear_maps_are_exact_between_gaussians(pair):
    """20,000 rows: an error of some 1e-4 of the variance."""
    found = w2.scores(pair, w2.solve("linear", Task(pair, "samples", 1.0)))
    assert found["uvp P to Q"] < 0.1
    assert found["uvp Q to P"] < 0.1


def test_what_each_league_is_told(pair):
    """Rows of Q are the same; of P the rows, or fresh draws of its density without end."""
    rows, density = (Task(pair, league, 1.0) for league in LEAGUES)
    assert rows.x is pair.x_train
    known = {tuple(row) for row in pair.x_train}
    told, fresh = (next(task.batches(True, 500, 0)) for task in (rows, density))
    assert {tuple(row) for row in told} <= known
    assert not {tuple(row) for row in fresh} & known
    assert density.x.shape == rows.x.shape
    np.testing.assert_allclose(density.x.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(density.x.T), np.eye(2), atol=0.05)
    of_q = [next(task.batches(False, 5, 1)) for task in (rows, density)]
    np.testing.assert_array_equal(*of_q)


def test_any_function_can_be_added(pair, tmp_path, monkeypatch):
    (tmp_path / "my_maps.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = w2.solve("mine=my_maps:twice", Task(pair, "samples", 1.0))
    assert set(w2.scores(pair, found)) == {"uvp P to Q", "cosine P to Q"}
    row = w2.scores(pair, found) | {"seconds": 1.0}
    assert w2.line("samples", 2, "mine=my_maps:twice", row).startswith("| samples | 2 | mine | ")
    assert "failed: no" in w2.line("samples", 2, "enot", {"status": "failed: no"})


@pytest.mark.slow
def test_a_certificate_tells_a_rotation_from_the_optimal_map(pair):
    """Both end in one law: the truth cannot be improved, turned draws can."""
    quick = functools.partial(
        bracket_pairs, config=DualConfig(width=4, regression_steps=0, ascent_steps=0)
    )
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(w2, "bracket_pairs", quick)
        A, m = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([3.0, -1.0])
        best, turned = (
            w2.without_the_truth(pair, Maps(map_), 9.0)
            for map_ in (lambda x: x @ A + m, lambda x: x @ turn @ A + m)
        )
    assert best["excess"] < 1
    assert turned["excess"] > 5
    for found in (best, turned):
        assert found["w2"] == pytest.approx(found["floor"], rel=0.5)


def test_the_discrete_map_moves_by_the_nearest_cell():
    x, y = np.array([[0.0], [10.0]]), np.array([[13.0], [1.0]])
    found = between.discrete_map(x, y, np.array([[0.5], [9.0]]))
    np.testing.assert_allclose(found, [[1.5], [12.0]])  # 0 -> 1, 10 -> 13


def test_interval_of_a_mean():
    scores = RNG.standard_normal(10_000) - 2
    nll, half = tabular.interval(scores)
    assert nll == -scores.mean()
    assert half == pytest.approx(1.96 * np.sqrt(np.var(scores) / 10_000), rel=1e-12)
    assert abs(nll - 2) < 2 * half


@pytest.mark.parametrize("natural", [0.0, 0.4])
def test_training_is_planned_within_the_budget_and_stops_at_it(monkeypatch, natural):
    """Of a model that compiles for 2 s and takes 0.01 s a step, by a clock of its own."""
    now = 100.0

    class Paced(BaseEstimator):
        def __init__(self, max_iter=0, natural_iter=0):
            self.max_iter, self.natural_iter = max_iter, natural_iter

        def fit(self, x, X_val, on_validation):
            nonlocal now
            now += 2.0
            rows = [(i, {"learning_rate": 0.1}) for i in range(0, self.max_iter + 1, 25)]
            rows += (
                [(i, {}) for i in range(0, self.natural_iter + 1, 5)] if self.natural_iter else []
            )
            for (i, extra), (before, _) in zip(rows, rows[:1] + rows, strict=False):
                now += 0.01 * max(0, i - before)
                on_validation({"iteration": i, "val_nll": 1 / now} | extra)

    monkeypatch.setattr(budget, "time", SimpleNamespace(perf_counter=lambda: now))
    model = Paced()
    curve = budget.fit_within(model, None, None, 10.0, natural)
    left = 0.93 * (10 - (3.2 if natural else 3.0))
    assert model.max_iter == int((1 - natural) * left / 0.01)
    assert model.natural_iter == int(natural * left / 0.01)
    ends = [seconds for seconds, _ in curve]
    assert ends[0] == pytest.approx(5.2 if natural else 5.0)
    assert ends[-2] <= 10 < ends[-1] <= 10.25
    np.testing.assert_allclose([1 / nll for _, nll in curve], np.add(ends, 100))


def test_the_dual_alone_ends_with_its_time(monkeypatch, pair):
    """By a clock of its own that a block of steps moves by 0.3 s."""
    now, blocks = 0.0, []

    def block(carry, *given):
        nonlocal now
        now += 0.3
        blocks.append(given)
        return carry

    monkeypatch.setattr(ours, "_DUAL_ONLY", 2)
    for module in (ours, plan, dual):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(dual, "_block", block)
    monkeypatch.setattr(dual, "_DRAWS", 512)
    monkeypatch.setattr(plan, "regress", lambda params, *given: params)
    found = w2.solve("otflow", Task(pair, "density", 2.0, settings={"width": 4}))
    assert len(blocks) == 6
    scores = w2.scores(pair, found)  # of the start, which is nearly exact between Gaussians
    assert max(scores["uvp P to Q"], scores["uvp Q to P"]) < 1
    with pytest.raises(ValueError, match=r"settings: expected .*; got \['natural'\]"):
        w2.solve("otflow", Task(pair, "density", 2.0, settings={"natural": 0.5}))


def test_an_interrupt_before_the_budgets_end_is_the_users():
    fits = []

    class Interrupted(BaseEstimator):
        def __init__(self, max_iter=0, natural_iter=0):
            self.max_iter, self.natural_iter = max_iter, natural_iter

        def fit(self, x, X_val, on_validation):
            fits.append(self)
            if len(fits) == 2:
                raise KeyboardInterrupt
            for i in (0, 25, 50):
                on_validation({"iteration": i, "val_nll": 1.0, "learning_rate": 0.1})

    with pytest.raises(KeyboardInterrupt):
        budget.fit_within(Interrupted(), None, None, 100.0)
    assert len(fits) == 2


@pytest.mark.slow
def test_training_stops_at_the_budget():
    x = RNG.standard_normal((400, 2))
    model = OTFlow(width=4, depth=0, n_steps=1, random_state=0, verbose=False, patience=10**6)
    start = time.perf_counter()
    curve = budget.fit_within(model, x[:300], x[300:], 1.0)
    assert model.flow_.dim == 2
    seconds, nll = zip(*curve, strict=True)
    assert list(seconds) == sorted(seconds)
    assert np.isfinite(nll).all()
    assert seconds[-1] <= time.perf_counter() - start
    assert model.max_iter >= 100


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_row_of_a_table():
    """On N(0, 4 I) the test nll lies near the entropy, and everything else is filled in."""
    x = 2 * RNG.standard_normal((1500, 2))
    data = Table(x[:1000], x[1000:1100], x[1100:], "x", ("a", "b"), x[0] * 0, x[0] * 0 + 1, "")
    settings = {"alpha": 10.0, "width": 4, "depth": 0, "n_steps": 1}
    row = tabular.ours(data, 1.0, settings, certificate=False)
    assert row["nll"] == pytest.approx(np.log(4 * 2 * np.pi * np.e), abs=0.3)
    assert row["invalid"] == 0
    assert row["inverse_error"] < 1e-3
    assert row["mmd_p"] > 0.001
    assert 0 < row["nll_error"] < 1e-4
    assert row["curve"]
    assert row["parameters"] > 0
