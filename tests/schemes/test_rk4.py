"""RK4 against exact solutions, SciPy's integrator, its own map's Jacobian and order of convergence.

A number of steps is a program, and so is a shape: all take 8, 16, 32 or 64 steps on 64 rows.
"""

import dataclasses
import functools

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.linalg import expm

from otflow.flow.objective import costs
from otflow.model.published import from_official_state
from otflow.potentials import GaussianBase
from otflow.reference import gaussian
from otflow.schemes import RK4
from otflow.support.precision import precision
from otflow.targets import StandardNormal
from tests.helpers import integrate_by_the_book, order, random_resnet, resnet_by_the_book, rms

pytestmark = pytest.mark.usefixtures("float64")

TRACES = ("simpson", "stages")
traces = pytest.mark.parametrize("trace", TRACES)
FIELDS = ("points", "log_det", "transport", "hjb")
ROWS = np.random.default_rng(0).normal(size=(64, 2))
X = ROWS[:4]

_push = eqx.filter_jit(lambda scheme, potential, x: scheme.push(potential, x))
_pull = eqx.filter_jit(lambda scheme, potential, y: scheme.pull(potential, y))


def by_64(mapped, scheme, potential, x):
    """A Push of NumPy arrays; the last row fills x up to 64."""
    found = mapped(scheme, potential, np.pad(x, ((0, 64 - len(x)), (0, 0)), mode="edge"))
    return jax.tree.map(lambda a: np.asarray(a)[: len(x)], found)


def push(scheme, potential, x):
    return by_64(_push, scheme, potential, x)


def pull(scheme, potential, y):
    return by_64(_pull, scheme, potential, y)


@functools.cache
def strong(seed):
    """Random potentials; for seed 2 the HJB residual keeps one sign, so |.| has no kink."""
    return random_resnet(2, 8, 2, seed=seed, scale=1.5)


class TestOrder:
    """Errors ~ n_steps^-4: the slopes measured lie between 4.04 and 4.19."""

    @pytest.mark.parametrize(
        ("direction", "start", "end", "n_steps"),
        [
            pytest.param(push, 0, 1, (8, 16, 32), id="push"),
            pytest.param(pull, 1, 0, (16, 32, 64), id="pull", marks=pytest.mark.slow),
        ],
    )
    def test_is_four(self, direction, start, end, n_steps):
        exact = integrate_by_the_book(strong(2), X, start, end)
        for trace in TRACES:
            found = [direction(RK4(n, trace), strong(2), X) for n in n_steps]
            for field in FIELDS:
                errors = [rms(getattr(f, field) - getattr(exact, field)) for f in found]
                assert abs(order(n_steps, errors) - 4) < 0.2, (trace, field, errors)
                assert errors[-1] < 1e-6


def test_stages_is_the_published_scheme():
    """Classical RK4 on the augmented state, one point at a time in NumPy; rounding: 1e-12."""
    p, n_steps = strong(1), 8
    h = 1 / n_steps
    rows = []
    for x in X:
        state = np.append(x, np.zeros(3))

        def rates(t, state):
            phi = resnet_by_the_book(p, state[:2], t)
            half_speed = 0.5 * phi.gradient[:2] @ phi.gradient[:2]
            residual = abs(phi.gradient[2] - half_speed)
            return np.append(-phi.gradient[:2], [-np.trace(phi.hessian), half_speed, residual])

        for k in range(n_steps):
            k1 = rates(k * h, state)
            k2 = rates((k + 0.5) * h, state + 0.5 * h * k1)
            k3 = rates((k + 0.5) * h, state + 0.5 * h * k2)
            k4 = rates((k + 1) * h, state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        rows.append(state)
    got = push(RK4(n_steps, "stages"), p, X)
    got = np.column_stack([got.points, got.log_det, got.transport, got.hjb])
    np.testing.assert_allclose(got, np.array(rows), rtol=1e-12, atol=1e-12)


def test_trace_does_not_change_the_points():
    found = [push(RK4(8, trace), strong(0), X).points for trace in TRACES]
    np.testing.assert_allclose(*found, rtol=1e-13, atol=1e-13)


def quadratic(A, b):
    """A silent network of the same shapes as `strong`, so that compiled functions are shared."""
    return dataclasses.replace(strong(0), A=A, b=b, w=np.zeros(8))


class TestQuadraticPotential:
    """Phi = 1/2 x'Mx + b'x, constant in time: dx/dt = -Mx - b, solved by expm; |M| = 0.52."""

    M = np.array([[0.45, 0.15], [0.15, 0.2]])
    SHIFT = np.array([0.5, -0.8])

    def potential(self):
        A = np.zeros((3, 3))
        A[:2, :2] = np.linalg.cholesky(self.M).T
        return quadratic(A, np.append(self.SHIFT, 0.0))

    def exact(self, time):
        """(map, transport) after `time`, which may be negative; homogeneous about -M^-1 b."""
        centre = -np.linalg.solve(self.M, self.SHIFT)
        z = X - centre
        flow = expm(-self.M * time)
        # int_0^T 1/2 |M exp(-Ms) z|^2 ds = 1/4 z'M(I - exp(-2MT))z
        action = 0.25 * self.M @ (np.eye(2) - expm(-2 * self.M * time))
        return centre + z @ flow.T, np.abs(np.einsum("nd,de,ne->n", z, action, z))

    @traces
    @pytest.mark.parametrize(("direction", "time"), [(push, 1.0), (pull, -1.0)], ids=["+", "-"])
    def test_matches_expm(self, trace, direction, time):
        """Local error (h |M|)^5/120 a step: 3e-10 with 32 steps. d_t Phi = 0: hjb is transport."""
        found = direction(RK4(32, trace), self.potential(), X)
        points, transport = self.exact(time)
        np.testing.assert_allclose(found.points, points, atol=1e-8)
        np.testing.assert_allclose(found.log_det, -np.trace(self.M) * time, rtol=1e-12)
        np.testing.assert_allclose(found.transport, transport, rtol=1e-7)
        np.testing.assert_allclose(found.hjb, found.transport, rtol=1e-12)


@traces
@pytest.mark.parametrize("direction", [push, pull], ids=["push", "pull"])
def test_accumulators_start_at_zero(trace, direction):
    """Constant velocity (1, -2): exact, and a start at t = 1 would show as an offset of 1."""
    uniform = quadratic(np.zeros((3, 3)), np.array([-1.0, 2.0, 0.5]))
    found = direction(RK4(32, trace), uniform, X)
    sign = 1 if direction is push else -1
    np.testing.assert_allclose(found.points, X + sign * np.array([1.0, -2.0]), rtol=1e-13)
    np.testing.assert_allclose(found.log_det, 0, atol=1e-15)
    np.testing.assert_allclose(found.transport, 2.5, rtol=1e-14)
    np.testing.assert_allclose(found.hjb, 2.0, rtol=1e-14)  # |0.5 - 2.5|


@traces
def test_pull_undoes_push(trace):
    """To rounding, though 32 steps leave an integration error: pull inverts the discrete map."""
    there = push(RK4(32, trace), strong(0), X)
    back = pull(RK4(32, trace), strong(0), there.points)
    assert rms(there.points - push(RK4(64, "stages"), strong(0), X).points) > 1e-7
    assert np.abs(there.log_det).min() > 0.01
    assert np.min(there.transport) > 0.1
    assert back.valid.all()
    for got, expected in (
        (back.points, X),
        (back.log_det, -there.log_det),
        (back.transport, there.transport),
        (back.hjb, there.hjb),
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_pull_says_where_the_steps_are_too_long():
    """x' = -k x: F(x) = (1 - z + z^2/2 - z^3/6 + z^4/24) x a step of z = k/32, B its mirror image.

    Where z = 2 they are x/3 and 7 x: a defect grows. Where z = 0.16 it shrinks.
    """

    def stiff(k):
        return quadratic(np.diag([np.sqrt(k), np.sqrt(k), 0.0]), np.zeros(3))

    assert not pull(RK4(32), stiff(64.0), X).valid.any()
    assert pull(RK4(32), stiff(5.0), X).valid.all()


def jacobian(mapped, x, step=1e-3):
    """(n, d, d) of the map of all rows at once, by differences of fourth order: 2e-13 here."""
    shifts = [k * step * e for e in np.eye(x.shape[1]) for k in (-2, -1, 1, 2)]
    ends = mapped(np.concatenate([x + shift for shift in shifts]))
    ends = ends.reshape(x.shape[1], 4, *x.shape)
    found = (8 * (ends[:, 2] - ends[:, 1]) - (ends[:, 3] - ends[:, 0])) / (12 * step)
    return np.moveaxis(found, 0, -1)


def test_log_det_tends_to_that_of_the_discrete_map():
    """slogdet of the Jacobian of the end point by differences: the gap is O(n_steps^-4)."""
    p, n_steps, gaps = strong(2), (8, 16, 32), {trace: [] for trace in TRACES}
    for n in n_steps:
        ends = jacobian(lambda x, n=n: push(RK4(n), p, x).points, X)
        for trace in TRACES:
            found = push(RK4(n, trace), p, X).log_det
            gaps[trace].append(rms(found - np.linalg.slogdet(ends)[1]))
    for trace in TRACES:
        assert order(n_steps, gaps[trace]) > 3.7, gaps
        assert gaps[trace][-1] < 1e-6


@traces
def test_gaussian_base_gives_the_reference(trace):
    """Points and transport to rounding; log-det sum log(s/sig) with a fourth-order error."""
    mean, cov, alpha = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 0.4]]), 4.0
    phi, exact = GaussianBase.solve(mean, cov, alpha), gaussian(mean, cov, alpha)
    log_det = np.sum(np.log(exact.mapped_stds / exact.stds))
    found = [push(RK4(n, trace), phi, X) for n in (8, 16)]
    coarse, fine = (np.abs(f.log_det - log_det).max() for f in found)
    np.testing.assert_allclose(found[0].points, exact.map(X), rtol=1e-11, atol=1e-11)
    half_squared = 0.5 * np.sum((exact.map(X) - X) ** 2, axis=1)
    np.testing.assert_allclose(found[0].transport, half_squared, rtol=1e-11)
    assert np.max(found[0].hjb) < 1e-12
    assert fine < 1e-5
    assert 12 < coarse / fine < 20


slow = pytest.mark.slow
few_steps = pytest.mark.parametrize(
    "n_steps", [pytest.param(4, marks=slow), 8, pytest.param(12, marks=slow)]
)


class TestSimpsonAgainstStages:
    """Root-mean-square errors at equal n_steps, against 8 times the steps: 3e-4 of the errors.

    "simpson" needs half the Laplacians. On ten random ones it was 0.1 to 1.6 times as far off.
    """

    COSTS = ("log_det", "transport")

    def ratios(self, potential, x, n_steps):
        """Error of "simpson" over error of "stages", one a cost."""
        exact = push(RK4(8 * n_steps, "stages"), potential, x)
        simpson, stages = (push(RK4(n_steps, trace), potential, x) for trace in TRACES)
        return np.array(
            [
                rms(getattr(simpson, f) - getattr(exact, f))
                / rms(getattr(stages, f) - getattr(exact, f))
                for f in self.COSTS
            ]
        )

    @few_steps
    def test_no_larger_on_the_official_potential(self, official, n_steps):
        """Measured: 0.27 to 0.30 for the log-det, 0.25 to 0.49 for the transport."""
        state = {k: v for k, v in official.items() if k.startswith("param/")}
        assert self.ratios(from_official_state(state), official["x"][:64], n_steps).max() < 0.6

    @few_steps
    @pytest.mark.parametrize("seed", [2, 3, 6])
    def test_no_larger_on_random_potentials(self, seed, n_steps):
        """Measured: 0.17 to 0.58."""
        assert self.ratios(strong(seed), ROWS, n_steps).max() < 0.7

    @few_steps
    def test_smaller_over_many_potentials_though_not_on_each(self, n_steps):
        """Largest of ten seeds: 1.61 (seed 0, transport, 4 steps), 1.13, 1.17; means 0.4 to 0.6."""
        ratios = np.array([self.ratios(strong(seed), ROWS, n_steps) for seed in range(10)])
        means = np.exp(np.log(ratios).mean(axis=0))
        assert means.max() < 0.75, ratios
        assert ratios.max() < 2, ratios


def mean_objective(scheme, potential):
    found = costs(potential, scheme, StandardNormal(2), X)
    return found.mean().objective(alpha=5.0, beta=0.3)


def adjoint_potential(depth):
    return random_resnet(2, 8, depth, seed=4, scale=1.5)


def value_and_slopes(scheme, potential):
    """The program, compiled."""
    found = jax.jit(jax.value_and_grad(lambda p: mean_objective(scheme, p)))
    return found.lower(potential).compile()


@pytest.fixture(scope="module")
def checkpointed():
    """More than 16 steps are recomputed."""
    with precision("float64"):
        return value_and_slopes(RK4(17), adjoint_potential(1))


class TestAdjoint:
    def assert_matches_differences(self, compiled, potential):
        """One random direction for every array; step 1e-5 leaves 1e-10 times a third derivative."""
        leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, potential))
        slopes = jax.tree.leaves(compiled(potential)[1])
        rng, step = np.random.default_rng(0), 1e-5
        for i, leaf in enumerate(leaves):
            direction = rng.standard_normal(leaf.shape)
            ends = [
                compiled(tree.unflatten([*leaves[:i], leaf + z * direction, *leaves[i + 1 :]]))[0]
                for z in (step, -step)
            ]
            difference = float(ends[0] - ends[1]) / (2 * step)
            slope = float(np.vdot(slopes[i], direction))
            np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)
            assert leaf.shape == () or abs(slope) > 1e-3

    def test_matches_finite_differences(self, checkpointed):
        self.assert_matches_differences(checkpointed, adjoint_potential(1))

    def test_of_stages_matches_finite_differences(self):
        p = adjoint_potential(0)
        self.assert_matches_differences(value_and_slopes(RK4(3, "stages"), p), p)

    def test_checkpointing_saves_memory_and_changes_nothing(self, checkpointed, monkeypatch):
        """Recomputed intermediates are the same numbers, up to fused arithmetic: 1e-12."""
        p = adjoint_potential(1)
        monkeypatch.setattr(jax, "checkpoint", lambda step: step)
        without = value_and_slopes(RK4(17), p)
        a, b = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(compiled(p))])
            for compiled in (checkpointed, without)
        )
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())
        bytes_with, bytes_without = (
            c.memory_analysis().temp_size_in_bytes for c in (checkpointed, without)
        )
        assert bytes_with < 0.5 * bytes_without


trajectories = eqx.filter_jit(lambda scheme, potential, x: scheme.trajectories(potential, x))


class TestTrajectories:
    def test_start_at_x_and_end_where_push_does(self):
        path = trajectories(RK4(8), strong(0), X)
        assert path.shape == (9, 4, 2)
        np.testing.assert_array_equal(path[0], X)
        np.testing.assert_allclose(path[-1], push(RK4(8), strong(0), X).points, rtol=1e-13)

    def test_pass_through_the_right_times(self):
        """Straight lines at constant speed under the Gaussian base: rounding only."""
        mean, cov = np.zeros(2), np.diag([4.0, 0.25])
        path = trajectories(RK4(4), GaussianBase.solve(mean, cov, 1.0), X)
        ends = gaussian(mean, cov, 1.0).map(X)
        times = np.linspace(0, 1, 5)[:, None, None]
        np.testing.assert_allclose(path, X + times * (ends - X), rtol=1e-12, atol=1e-12)


BAD = {
    "zero steps": ({"n_steps": 0}, ValueError, "n_steps"),
    "negative steps": ({"n_steps": -1}, ValueError, "n_steps"),
    "a fraction of a step": ({"n_steps": 1.5}, TypeError, "n_steps"),
    "a boolean": ({"n_steps": True}, TypeError, "n_steps"),
    "text": ({"n_steps": "8"}, TypeError, "n_steps"),
    "unknown trace": ({"trace": "hutchinson"}, ValueError, "trace"),
    "no trace": ({"trace": None}, ValueError, "trace"),
}


@pytest.mark.parametrize(("arguments", "error", "name"), BAD.values(), ids=BAD)
def test_bad_arguments_are_rejected(arguments, error, name):
    with pytest.raises(error, match=f"^{name}: expected .*got"):
        RK4(**arguments)
