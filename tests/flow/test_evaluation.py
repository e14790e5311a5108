"""Monte Carlo costs against the Gaussian reference, by-hand sums, and their own intervals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.flow.evaluation import evaluate, objective_gap
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.reference import gaussian, product_mixture
from otflow.schemes import RK4, Conforming
from otflow.support.precision import cast, precision
from otflow.support.statistics import Estimate
from otflow.targets import GaussianMixture, RotatedProduct, StandardNormal
from tests.helpers import random_resnet

MEAN, COV, ALPHA = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]]), 3.0


def density():
    with precision("float64"):
        return GaussianMixture([1.0], MEAN[None], COV[None])


def exact_flow(scheme=None, alpha=ALPHA):
    with precision("float64"):
        return Flow(GaussianBase.solve(MEAN, COV, alpha), None, scheme or Conforming(2))


def folded_flow():
    """A ridge along x_1 = 0 where 1 - 4 sech(2 x_1)^2 is negative."""
    with precision("float64"):
        shapes = jax.eval_shape(lambda: ResNetPotential.create(2, 1, 0, jax.random.key(0)))
        p = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
        p = eqx.tree_at(lambda p: p.weights[0], p, np.array([[2.0, 0.0, 0.0]]))
        return Flow(eqx.tree_at(lambda p: p.w, p, np.ones(1)), None, Conforming(1))


def terms(flow, scheme=None, seed=0):
    """Transport, log ratio, validity and samples of the 1,000 points of a seed."""
    with precision("float64"):
        flow = Flow(flow.potential, flow.target, scheme or flow.scheme)
        return jax.tree.map(np.asarray, _terms(flow, density(), jax.random.key(seed)))


@jax.jit
def _terms(flow, rho0, key):
    x = rho0.sample(jax.random.split(key, 1)[0], 1000)
    pushed = flow.push(x)
    u = rho0.log_prob(x) - flow.target.log_prob(pushed.points) - pushed.log_det
    return pushed.transport, u, pushed.valid, x


def assert_is_mean_of(estimate, values):
    """Sums of squares cancel some digits in the variance: 1e-8."""
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-12)
    error = values.std() / np.sqrt(values.size)
    assert estimate.standard_error == pytest.approx(error, rel=1e-8)


def test_interval_is_1_96_standard_errors():
    assert Estimate(2.0, 0.5).interval == pytest.approx((1.02, 2.98), abs=2e-5)


def test_intervals_cover_the_truth():
    """One seed; a 95 % interval widened to 4 standard errors misses once in 16,000."""
    n, exact = 3000, gaussian(MEAN, COV, ALPHA)
    found = evaluate(exact_flow(), density(), ALPHA, n=n)
    assert (found.n, found.invalid, found.nll_error) == (n, 0, 0.0)
    for name in ("transport", "kl", "objective"):
        estimate, truth = getattr(found, name), getattr(exact, name)
        assert abs(estimate.mean - truth) < 4 * estimate.standard_error
        assert 0 < estimate.standard_error < 0.05 * truth


def test_standard_errors_are_those_of_repetition():
    """80 seeds: the spread is known to 8 %, coverage of 95 % to 2.4 %: 3 of each are allowed."""
    flow, rho0, exact = exact_flow(), density(), gaussian(MEAN, COV, ALPHA)
    runs = [evaluate(flow, rho0, ALPHA, n=1000, seed=seed) for seed in range(80)]
    for name in ("transport", "kl"):
        estimates, truth = [getattr(r, name) for r in runs], getattr(exact, name)
        spread = np.std([e.mean for e in estimates])
        typical = np.mean([e.standard_error for e in estimates])
        assert 0.76 < spread / typical < 1.24
        covered = np.mean([e.interval[0] < truth < e.interval[1] for e in estimates])
        assert covered > 0.87


class TestByHand:
    @pytest.mark.parametrize(
        ("alpha", "reduced_wins"), [(100.0, True), (0.02, False)], ids=["near", "far"]
    )
    def test_the_estimator_with_less_noise_is_taken(self, alpha, reduced_wins):
        """u near zero: u - 1 + exp(-u); far: u itself."""
        flow = exact_flow(alpha=alpha)
        transport, u, valid, _ = terms(flow)
        assert valid.all()
        reduced = u - 1 + np.exp(-u)
        assert (reduced.std() < u.std()) == reduced_wins
        kl = reduced if reduced_wins else u
        found = evaluate(flow, density(), alpha, n=1000)
        assert_is_mean_of(found.transport, transport)
        assert_is_mean_of(found.kl, kl)
        assert_is_mean_of(found.objective, transport + alpha * kl)

    def test_the_reference_is_a_control_variate(self):
        """A flow for another alpha: the costs of the exact map are subtracted point by point."""
        flow, exact = exact_flow(alpha=2.5), gaussian(MEAN, COV, ALPHA)
        transport, _, _, x = terms(flow)
        controlled = transport - 0.5 * ((exact.map(x) - x) ** 2).sum(axis=1) + exact.transport
        found = evaluate(flow, density(), ALPHA, n=1000, exact=exact).transport
        assert_is_mean_of(found, controlled)
        plain = evaluate(flow, density(), ALPHA, n=1000).transport
        assert found.standard_error < 0.2 * plain.standard_error

    def test_integration_error_by_step_doubling(self):
        flow = exact_flow(RK4(1))
        (_, coarse, *_), (_, fine, *_) = terms(flow), terms(flow, RK4(2))
        found = evaluate(flow, density(), ALPHA, n=1000)
        error = np.abs(coarse - fine).mean()
        assert error > 1e-7
        assert found.nll_error == pytest.approx(error, rel=1e-9)

    def test_points_that_are_not_invertible_are_counted_and_left_out(self):
        flow = folded_flow()
        transport, u, valid, _ = terms(flow)
        kl = u[valid]
        found = evaluate(flow, density(), ALPHA, n=1000)
        assert found.invalid == (~valid).sum()
        assert 50 < found.invalid < 950
        assert_is_mean_of(found.transport, transport)
        assert_is_mean_of(found.objective, transport[valid] + ALPHA * kl)


def test_at_the_exact_flow_the_controlled_transport_has_no_noise():
    """Rounding of squares of some 1: errors below 1e-8 / sqrt(n)."""
    exact = gaussian(MEAN, COV, ALPHA)
    found = evaluate(exact_flow(), density(), ALPHA, n=2000, exact=exact).transport
    assert found.standard_error < 1e-8
    assert found.mean == pytest.approx(exact.transport, rel=1e-12)
    assert evaluate(exact_flow(), density(), ALPHA, n=2000).transport.standard_error > 1e-3


def test_the_seed_decides():
    first, again, other = (
        evaluate(exact_flow(), density(), ALPHA, n=1000, seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert first.kl.mean != other.kl.mean
    assert first.transport.mean != other.transport.mean


@pytest.mark.parametrize(("n", "used"), [(1, 1000), (1500, 2000)])
def test_samples_come_in_thousands(n, used):
    found = evaluate(exact_flow(), density(), ALPHA, n=n)
    assert found.n == used
    assert found.kl.standard_error > 0


def test_more_chunks_than_a_call_takes_are_all_used(monkeypatch):
    plain = evaluate(exact_flow(), density(), ALPHA, n=3000)
    monkeypatch.setattr("otflow.flow.evaluation._BLOCK", 2)
    blocked = evaluate(exact_flow(), density(), ALPHA, n=3000)
    assert blocked.n == 3000
    for name in ("transport", "kl", "objective"):
        a, b = getattr(blocked, name), getattr(plain, name)
        assert a.mean == pytest.approx(b.mean, rel=1e-12)
        assert a.standard_error == pytest.approx(b.standard_error, rel=1e-8)


def test_a_float32_flow_is_evaluated_in_float64():
    """As if its rounded parameters had been float64 ones all along."""
    low = cast(exact_flow(), "float32")
    found = evaluate(low, cast(density(), "float32"), ALPHA, n=1000)
    expected = evaluate(cast(low, "float64"), cast(density(), "float32"), ALPHA, n=1000)
    assert found == expected
    assert jnp.zeros(1).dtype == np.float32


BAD = {
    "alpha zero": ({"alpha": 0.0}, ValueError, "^alpha: expected a finite number > 0; got 0"),
    "alpha infinite": ({"alpha": np.inf}, ValueError, "^alpha: expected a finite number > 0"),
    "alpha text": ({"alpha": "3"}, TypeError, "^alpha: expected a number > 0; got str"),
    "n zero": ({"n": 0}, ValueError, "^n: expected an integer >= 1; got 0"),
    "n a fraction": ({"n": 1e3}, TypeError, "^n: expected an integer >= 1; got float"),
    "density of another dimension": (
        {"density": StandardNormal(3)},
        ValueError,
        "^density: expected dimension 2; got 3",
    ),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_rejected(change, error, message):
    arguments = {"flow": exact_flow(), "density": density(), "alpha": ALPHA, "n": 1000} | change
    with pytest.raises(error, match=message):
        evaluate(**arguments)


class TestObjectiveGap:
    @pytest.mark.parametrize("own", [ALPHA, 3 * ALPHA])
    def test_the_gaussian_solution_of_another_penalty(self, own):
        """One step of the solution of `own` costs transport(own) + alpha KL(own), exactly."""
        mean, cov = np.array([0.3, -1.0]), np.array([[2.0, 0.4], [0.4, 0.7]])
        with precision("float64"):
            flow = Flow(GaussianBase.solve(mean, cov, own), scheme=Conforming(1))
        exact, other = gaussian(mean, cov, ALPHA), gaussian(mean, cov, own)
        found = objective_gap(flow, exact, n=4000)
        truth = other.transport + ALPHA * other.kl - exact.objective
        assert found.mean == pytest.approx(truth, abs=4 * found.standard_error + 1e-9)
        assert found.standard_error < 0.05 * truth + 1e-9

    @pytest.mark.parametrize("n_steps", [1, 3])
    def test_it_is_the_difference_of_the_means(self, n_steps):
        """Against `evaluate`, an independent route; within 4.5 standard errors: 1 of 10^5."""
        exact = product_mixture(2, ALPHA)
        mean, cov = exact.rotation @ np.full(2, 0.1), 2.5 * np.eye(2)
        with precision("float64"):
            potential = GaussianBase.solve(mean, cov, ALPHA) + random_resnet(2, scale=0.1)
        flow = Flow(potential, scheme=Conforming(n_steps))
        rows = [np.tile(v, (2, 1)) for v in ([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7])]
        plain = evaluate(flow, RotatedProduct(*rows, exact.rotation), ALPHA, 40_000, exact=exact)
        found = objective_gap(flow, exact, n=8000, seed=1)
        assert plain.invalid == 0
        noise = np.hypot(found.standard_error, plain.objective.standard_error)
        difference = plain.objective.mean - exact.objective
        assert found.mean == pytest.approx(difference, abs=4.5 * noise)

    def test_no_gap_where_the_map_is_not_invertible(self):
        exact = gaussian(np.zeros(2), np.eye(2), ALPHA)
        flow = Flow(random_resnet(2, scale=3.0), scheme=Conforming(1))
        assert np.isnan(objective_gap(flow, exact, n=200).mean)

    def test_refused(self):
        flow, other = exact_flow(), gaussian(np.zeros(3), np.eye(3), ALPHA)
        with pytest.raises(ValueError, match=r"^flow: expected one to N\(0, I\) in dimension 3"):
            objective_gap(flow, other)
        with pytest.raises(ValueError, match=r"^exact.alpha: expected a finite number"):
            objective_gap(flow, gaussian(np.zeros(2), np.eye(2), np.inf))

    def test_intervals_of_nets_cover(self):
        """40 seeds: 95 % of intervals; under 33 of them would be one chance in 1,000."""
        exact, other = gaussian(MEAN, COV, ALPHA), gaussian(MEAN, COV, 3 * ALPHA)
        flow = exact_flow(Conforming(1), alpha=3 * ALPHA)
        truth = other.transport + ALPHA * other.kl - exact.objective
        found = [objective_gap(flow, exact, n=500, seed=seed) for seed in range(40)]
        inside = [e.interval[0] <= truth <= e.interval[1] for e in found]
        assert sum(inside) >= 33
