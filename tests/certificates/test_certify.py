"""Whole certificates: a right flow, the four bad ones, every label, and bad input."""

import json
import math

import jax
import numpy as np
import pytest

from otflow.certificates import Certificate, DualConfig, certify, certify_model, measure
from otflow.certificates.budget import KNOBS, error_budget, trainable_parameters
from otflow.certificates.certificate import BudgetItem, Line
from otflow.flow.flow import Flow
from otflow.potentials import GaussianBase
from otflow.reference import gaussian
from otflow.schemes import Conforming
from otflow.support.precision import precision
from otflow.targets import GaussianMixture, StandardNormal
from tests.certificates.bad_flows import (
    ALPHA,
    COV,
    MEAN,
    curved_flow,
    density,
    faulty_flow,
    gaussian_flow,
    untrained_flow,
)
from tests.flow.test_evaluation import folded_flow
from tests.helpers import random_resnet
from tests.potentials.test_stages import stages

QUICK = DualConfig(width=16, regression_steps=300, ascent_steps=100, batch_size=256)
EXACT = gaussian(MEAN, COV, ALPHA)
X = EXACT.sample(1, 4000)  # halves of 2,000: the shapes of `run`, compiled once


def run(flow, **options):
    given = {"density": density(), "alpha": ALPHA, "n": 2000, "config": QUICK} | options
    return certify(flow, **given)


def from_rows(flow, x=X, **options):
    """With 300 rows a side in the two-sample tests instead of 800, which take longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_TEST_ROWS", 300)
        return certify(flow, x, config=QUICK, **options)


@pytest.fixture(scope="module")
def good():
    """The exact flow with everything known about its density."""
    return run(gaussian_flow())


END_MEAN, END_COV = np.array([-1.0, 0.5]), np.array([[0.5, -0.2], [-0.2, 1.5]])


@pytest.fixture(scope="module")
def to_mixture():
    with precision("float64"):
        base = GaussianBase.solve(MEAN, COV, ALPHA, END_MEAN, END_COV)
        target = GaussianMixture([1.0], END_MEAN[None], END_COV[None])
        return run(Flow(base, target, Conforming(1)))


@pytest.mark.slow
class TestMixtureTarget:
    """The exact flow to another Gaussian, given as a mixture of one component."""

    def truth(self):
        """Transport and KL of that affine map."""
        with precision("float64"):
            base = GaussianBase.solve(MEAN, COV, ALPHA, END_MEAN, END_COV)
            C = np.eye(2) - np.asarray(base.hessian(MEAN[None], 0.0))[0]
            m = MEAN - np.asarray(base.gradient(MEAN[None], 0.0))[0, :-1]
        S, P, moved = C @ COV @ C, np.linalg.inv(END_COV), C - np.eye(2)
        logs = np.log(np.linalg.det(END_COV) / np.linalg.det(S))
        kl = 0.5 * (np.trace(P @ S) - 2 + (m - END_MEAN) @ P @ (m - END_MEAN) + logs)
        return 0.5 * np.trace(moved @ COV @ moved) + 0.5 * np.sum((m - MEAN) ** 2), kl

    def test_bracket_kl_and_gap(self, to_mixture):
        transport, kl = self.truth()
        assert to_mixture.lower < transport < to_mixture.upper
        low, high = to_mixture.line("KL(T#rho0, target)").interval
        assert low < kl < high
        assert to_mixture.line("J*_alpha, lower bound").value < transport + ALPHA * kl
        gap = to_mixture.line("duality gap of J_alpha").value
        assert 0 <= gap < 0.05 * (transport + ALPHA * kl)

    def test_talagrand_is_not_claimed(self, to_mixture):
        line = to_mixture.line("W2(T#rho0, target)")
        assert math.isnan(line.value)
        assert line.interval is None
        assert line.explanation.startswith("Talagrand's inequality is for N(0, I)")

    def test_samples_from_the_mixture_have_the_law_of_the_rows_at_large_alpha_only(
        self, to_mixture
    ):
        """At alpha = 10 the optimum itself ends beside the target, and 800 rows show it."""
        assert to_mixture.line("T(rows) against target, MMD").value < 0.05
        assert any(found.startswith("laws differ") for found in to_mixture.findings)


class TestExactFlow:
    """One seed; every interval checked has confidence 95 % or more."""

    def test_bracket_and_penalty_hold_the_truth(self, good):
        assert good.lower < EXACT.transport < good.upper
        assert good.line("J*_alpha, lower bound").value < EXACT.objective
        low, high = good.line("J_alpha of the flow").interval
        assert low < EXACT.objective < high
        assert 0 <= good.line("duality gap of J_alpha").value < 0.05 * EXACT.objective

    def test_kl_and_talagrand(self, good):
        low, high = good.line("KL(T#rho0, target)").interval
        assert low < EXACT.kl < high
        # the exact W2 between N(mapped_mean, ..) and N(0, I) lies below Talagrand's bound
        w2 = math.sqrt(np.sum((EXACT.mapped_stds - 1) ** 2) + np.sum(EXACT.mapped_mean**2))
        bound = good.line("W2(T#rho0, target)").interval[1]
        assert w2 < bound == pytest.approx(math.sqrt(2 * high))

    def test_nothing_is_found_wrong(self, good):
        assert good.findings == ()
        assert good.invalid == 0
        assert good.line("log-determinant error").value < 1e-12
        least = (EXACT.mapped_stds / EXACT.stds).min()
        assert good.line("smallest eigenvalue of grad T").value == pytest.approx(least, rel=1e-10)

    def test_budget(self, good):
        """c = 1/2 Var psi at alpha = 10: near the limit's rate constant."""
        by_name = {item.name: item.value for item in good.budget}
        assert by_name["penalty"] == pytest.approx(EXACT.rate_constant / ALPHA, rel=0.3)
        assert by_name["integration"] == by_name["estimation"] == 0
        assert good.largest_error.name == "penalty"
        assert good.largest_error.knob == "raise alpha"

    def test_every_line_is_labelled_and_explained(self, good):
        assert len({line.name for line in good.lines}) == len(good.lines) >= 15
        for line in good.lines:
            assert line.label in ("proved (95 %)", "estimated")
            assert line.explanation
            assert line.unit

    def test_a_map_that_may_fold_proves_no_kl(self, good):
        """A potential without stages: the integral is measured, the KL rests on it."""
        names = ("KL(T#rho0, target)", "J_alpha of the flow", "duality gap of J_alpha")
        for name in (*names, "W2(T#rho0, target)"):
            assert good.line(name).label == "estimated"
        for name in names:
            assert "the map may fold, and its density sums to 1" in good.line(name).explanation
        for name in ("1/2 W2^2(rho0, T#rho0)", "excess transport", "J*_alpha, lower bound"):
            assert good.line(name).label == "proved (95 %)", good.line(name).explanation

    def test_to_dict_is_json(self, good):
        found = json.loads(json.dumps(good.to_dict()))
        assert (found["lower"], found["upper"]) == (good.lower, good.upper)
        assert found["largest_error"] == "penalty"
        assert [line["name"] for line in found["lines"]] == [line.name for line in good.lines]

    def test_line_names_what_there_is(self, good):
        with pytest.raises(KeyError, match=r"expected one of .*straightness"):
            good.line("no such line")


BAD = {
    "rotated": (lambda: faulty_flow(np.pi / 6), "not optimal: grad T"),
    "reversed": (lambda: faulty_flow(3.0), "not monotone"),
    "curved": (lambda: curved_flow(n_steps=2), "paths are not straight"),
    "untrained": (untrained_flow, "laws differ: T(rows) against target"),
    "log-det": (lambda: faulty_flow(factor=0.9), "log-determinant is wrong"),
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD)
def test_bad_flows_are_caught(make, said):
    """From rows alone, without density or entropy."""
    found = from_rows(make())
    assert any(said in finding for finding in found.findings), found.findings
    assert found.budget == ()
    assert math.isnan(found.line("W2(T#rho0, target)").value)


def test_a_rotation_leaves_the_bracket_wide_and_valid():
    """The endpoint law is that of the exact flow up to a rotation; 1/2 W2^2 stays within."""
    found = from_rows(faulty_flow(np.pi / 2))
    J = np.array([[0, -1], [1, 0]]) @ EXACT.axes @ np.diag(EXACT.mapped_stds) @ EXACT.axes.T
    root, moved = EXACT.axes @ np.diag(EXACT.stds) @ EXACT.axes.T, J @ J.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ moved @ root)).sum()
    mean = np.array([[0, -1], [1, 0]]) @ EXACT.mapped_mean - MEAN
    truth = 0.5 * (mean @ mean + np.trace(COV) + np.trace(moved) - 2 * cross)
    assert found.lower < truth < found.upper
    assert found.relative_width > 0.5


@pytest.mark.slow
def test_rows_that_are_not_invertible_are_counted_and_named():
    x = np.random.default_rng(0).standard_normal((4000, 2))
    found = from_rows(folded_flow(), x, alpha=1.0, entropy=2.8379)
    folds = 1 - 4 / np.cosh(2 * x[:, 0]) ** 2 <= 0
    assert found.invalid == folds.sum() > 1000
    assert found.checked == 4000
    assert any("not invertible at" in finding for finding in found.findings)
    assert "not invertible" in found.line("W2(T#rho0, target)").explanation
    assert "J_alpha of the flow" not in [line.name for line in found.lines]
    assert found.lower >= 0


@pytest.mark.slow
def test_entropy_alone_gives_the_penalty_lines():
    """rk4 without a swerve, so that integration errors alone appear; the density's entropy."""
    found = from_rows(curved_flow(0.0, n_steps=2), alpha=ALPHA, entropy=EXACT.entropy)
    assert found.line("J*_alpha, lower bound").value < EXACT.objective
    by_name = {item.name: item.value for item in found.budget}
    assert by_name["integration"] > 0
    assert found.line("straightness").label == "estimated"


def test_budget_by_hand():
    found = error_budget(10.0, 0.01, 0.02, 0.03, 4.0, 200, 1000, False, 1.5)
    assert [item.name for item in found] == list(KNOBS)
    values = [item.value for item in found]
    np.testing.assert_allclose(values, [0.01, 0.02, 0.03, 0.4, 1.0, 0.49], rtol=1e-12)
    assert math.isnan(error_budget(10.0, 0, 0, 0, 0, 0, math.inf, False, None)[-1].value)


def test_trainable_parameters():
    network = random_resnet(2, width=4, depth=0)
    count = sum(leaf.size for leaf in jax.tree.leaves(network))
    assert trainable_parameters(gaussian_flow().potential + network) == count


def test_unknown_numbers_become_none():
    line = Line("a", math.nan, (None, math.inf), "estimated", "1", "b")
    item = BudgetItem("c", math.nan, "d")
    found = Certificate(0.0, 0.0, 0.95, (line,), (item,), (), 0, 1, 1, 1, "s", 0.0)
    plain = found.to_dict()
    assert plain["lines"][0]["value"] is None
    assert plain["lines"][0]["interval"] == [None, None]
    assert plain["largest_error"] is None
    assert found.relative_width == 0.0


WRONG = {
    "flow": ({"flow": 3}, TypeError, "^flow: expected an otflow.Flow; got int"),
    "no rows": ({"X": None}, ValueError, "^X: expected rows, or a density"),
    "columns": (
        {"X": np.zeros((50, 3))},
        ValueError,
        r"^X: expected shape \(n, 2\); got \(50, 3\)",
    ),
    "few rows": ({"X": X[:39]}, ValueError, "^X: expected at least 40 rows; got 39"),
    "nan": ({"X": X * np.nan}, ValueError, "^X: expected finite numbers"),
    "holdout": ({"X_holdout": X[:5]}, ValueError, "^X_holdout: expected at least 20 rows; got 5"),
    "density": ({"density": "normal"}, TypeError, "^density: expected an object of otflow.targets"),
    "density dim": ({"density": StandardNormal(3)}, ValueError, "^density: .* dimension 2; got 3"),
    "alpha": ({"alpha": 0.0}, ValueError, "^alpha: expected a finite number > 0; got 0.0"),
    "alpha type": ({"alpha": "1"}, TypeError, "^alpha: expected a number > 0; got str"),
    "entropy": ({"entropy": math.inf}, ValueError, "^entropy: expected a finite number"),
    "entropy type": ({"entropy": "1"}, TypeError, "^entropy: expected a number of nats; got str"),
    "n": ({"n": 10}, ValueError, "^n: expected an integer >= 40; got 10"),
    "n_train": ({"n_train": 0}, ValueError, "^n_train: expected an integer >= 1; got 0"),
    "parameters": ({"parameters": "1"}, TypeError, "^parameters: expected a number >= 0; got str"),
    "seconds": ({"seconds": -1.0}, ValueError, "^seconds: expected a finite number > 0"),
    "seed": ({"seed": 0.5}, TypeError, "^seed: expected an integer >= 0; got float"),
    "confidence": ({"confidence": 95}, ValueError, r"^confidence: expected a number in \(0, 1\)"),
    "config": ({"config": {}}, TypeError, "^config: expected a DualConfig; got dict"),
}


@pytest.mark.parametrize(("change", "error", "match"), WRONG.values(), ids=WRONG)
def test_bad_input(change, error, match):
    given = {"flow": gaussian_flow(), "X": X} | change
    with pytest.raises(error, match=match):
        certify(given.pop("flow"), given.pop("X"), **given)


def test_an_estimator_that_is_not_fitted():
    from otflow import OTFlow

    with pytest.raises(TypeError, match=r"^model: expected a fitted otflow.OTFlow; got OTFlow"):
        certify_model(OTFlow(), X)


@pytest.mark.slow
class TestOwnDual:
    """One convex stage is optimal to its own end law, and its own u proves it."""

    @pytest.fixture(scope="class")
    @classmethod
    def found(cls):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measure, "fit_dual", None)  # nothing is fitted
            return from_rows(cls.flow())

    @staticmethod
    def flow():
        with precision("float64"):
            return Flow(stages(1, 2, wild=0.3), scheme=Conforming(1))

    def test_the_width_is_sampling_alone(self, found):
        """Two one-sided bounds of a mean of n values, by hand."""
        moved = np.asarray(self.flow().forward(X)) - X
        half_squared = 0.5 * (moved**2).sum(axis=1)
        assert found.lower < half_squared.mean() < found.upper
        error = half_squared.std(ddof=1) / math.sqrt(len(X))
        assert found.upper - found.lower == pytest.approx(2 * 1.97 * error, rel=0.05)
        lines = {line.name: line for line in found.lines}
        assert lines["excess transport"].interval == (0.0, 0.0)
        assert "the flow's own convex potential" in lines["1/2 W2^2(rho0, T#rho0)"].explanation
        assert lines["integral of the density"].value == 1
        assert "proved" in lines["integral of the density"].label

    def test_u_is_the_potential(self):
        """u(x) + u*(T(x)) = <x, T(x)>: u* by maximising over a fine grid, not by Newton."""
        flow = self.flow()
        line = np.linspace(-8, 8, 801)
        grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
        with precision("float64"):
            u = 0.5 * (grid**2).sum(1) - np.asarray(flow.potential.value(grid, 0.0))
            own = 0.5 * (X[:5] ** 2).sum(1) - np.asarray(flow.potential.value(X[:5], 0.0))
        end = np.asarray(flow.forward(X[:5]))
        conjugate = (end @ grid.T - u).max(axis=1)
        np.testing.assert_allclose(own + conjugate, (X[:5] * end).sum(1), atol=1e-3)
