"""RK4 against exact solutions, SciPy's integrator, autodiff, and its own order of convergence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import expm

from otflow.interop import from_official_state
from otflow.objective import costs
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.reference import gaussian
from otflow.schemes import RK4
from otflow.targets import StandardNormal
from tests.support import integrate_by_the_book, order, random_resnet, resnet_by_the_book, rms

pytestmark = pytest.mark.usefixtures("float64")

TRACES = ("simpson", "stages")
traces = pytest.mark.parametrize("trace", TRACES)
FIELDS = ("points", "log_det", "transport", "hjb")
X = np.random.default_rng(0).normal(size=(4, 2))


@eqx.filter_jit
def push(scheme, potential, x):
    return scheme.push(potential, x)


@eqx.filter_jit
def pull(scheme, potential, y):
    return scheme.pull(potential, y)


def strong(seed):
    """Random potentials; for seed 2 the HJB residual keeps one sign, so |.| has no kink."""
    return random_resnet(2, 8, 2, seed=seed, scale=1.5)


class TestOrder:
    """Errors ~ n_steps^-4: the slopes measured lie between 3.94 and 4.08."""

    @pytest.mark.parametrize(
        ("direction", "start", "end", "n_steps"),
        [
            pytest.param(push, 0, 1, (16, 32, 64), id="push"),
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
    p, n_steps = strong(1), 4
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
    found = [push(RK4(4, trace), strong(0), X).points for trace in TRACES]
    np.testing.assert_allclose(*found, rtol=1e-13, atol=1e-13)


def quadratic(A, b):
    """A silent network of the same shapes as `strong`, so that compiled functions are shared."""
    silent = ResNetPotential.create(2, 8, 2, jax.random.key(0), output_scale=0.0)
    return eqx.tree_at(lambda p: (p.A, p.b), silent, (jnp.asarray(A), jnp.asarray(b)))


class TestQuadraticPotential:
    """Phi = 1/2 x'Mx + b'x, constant in time: dx/dt = -Mx - b, solved by expm."""

    M = np.array([[0.9, 0.3], [0.3, 0.4]])
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
        """Local error (h |M|)^5/120 a step: 1e-9 with 64 steps. d_t Phi = 0: hjb is transport."""
        found = direction(RK4(64, trace), self.potential(), X)
        points, transport = self.exact(time)
        np.testing.assert_allclose(found.points, points, atol=1e-8)
        np.testing.assert_allclose(found.log_det, -np.trace(self.M) * time, rtol=1e-12)
        np.testing.assert_allclose(found.transport, transport, rtol=1e-7)
        np.testing.assert_allclose(found.hjb, found.transport, rtol=1e-12)


@traces
@pytest.mark.parametrize("direction", [push, pull], ids=["push", "pull"])
def test_accumulators_start_at_zero(trace, direction):
    """Constant velocity (1, -2): exact, and a start at t = 1 would show as an offset of 1."""
    uniform = quadratic(np.zeros((3, 3)), [-1.0, 2.0, 0.5])
    found = direction(RK4(4, trace), uniform, X)
    sign = 1 if direction is push else -1
    np.testing.assert_allclose(found.points, X + sign * np.array([1.0, -2.0]), rtol=1e-13)
    np.testing.assert_allclose(found.log_det, 0, atol=1e-15)
    np.testing.assert_allclose(found.transport, 2.5, rtol=1e-14)
    np.testing.assert_allclose(found.hjb, 2.0, rtol=1e-14)  # |0.5 - 2.5|


@traces
def test_pull_undoes_push(trace):
    """To rounding, though 8 steps leave an integration error: pull inverts the discrete map."""
    there = push(RK4(8, trace), strong(0), X)
    back = pull(RK4(8, trace), strong(0), there.points)
    assert rms(there.points - push(RK4(64, trace), strong(0), X).points) > 1e-7
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
    """One step of x' = -10 x: F(x) = (1 - 10 + 50 - 1000/6 + 10^4/24) x, B another; no inverse."""
    stiff = quadratic(np.diag([np.sqrt(10.0), np.sqrt(10.0), 0.0]), np.zeros(3))
    assert not pull(RK4(1), stiff, X).valid.any()
    assert pull(RK4(64), stiff, X).valid.all()


def test_log_det_tends_to_that_of_the_discrete_map():
    """slogdet of the Jacobian of the end point by autodiff: the gap is O(n_steps^-4)."""
    p, n_steps, gaps = strong(2), (8, 16, 32), {trace: [] for trace in TRACES}
    for n in n_steps:

        def end(x, n=n):
            return RK4(n).trajectories(p, x[None])[-1, 0]

        log_det = np.linalg.slogdet(jax.jit(jax.vmap(jax.jacfwd(end)))(X))[1]
        for trace in TRACES:
            gaps[trace].append(rms(push(RK4(n, trace), p, X).log_det - log_det))
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


class TestSimpsonAgainstStages:
    """Root-mean-square errors at equal n_steps, against 128 steps: 1e-3 of the errors or less.

    "simpson" needs half the Laplacians. On ten random ones it was 0.1 to 1.6 times as far off.
    """

    COSTS = ("log_det", "transport")
    ROWS = np.random.default_rng(0).normal(size=(64, 2))

    def ratios(self, potential, x, n_steps):
        """Error of "simpson" over error of "stages", one a cost."""
        exact = push(RK4(128, "stages"), potential, x)
        simpson, stages = (push(RK4(n_steps, trace), potential, x) for trace in TRACES)
        return np.array(
            [
                rms(getattr(simpson, f) - getattr(exact, f))
                / rms(getattr(stages, f) - getattr(exact, f))
                for f in self.COSTS
            ]
        )

    @pytest.mark.parametrize("n_steps", [4, 8, 12])
    def test_no_larger_on_the_official_potential(self, official, n_steps):
        """Measured: 0.27 to 0.30 for the log-det, 0.25 to 0.49 for the transport."""
        state = {k: v for k, v in official.items() if k.startswith("param/")}
        assert self.ratios(from_official_state(state), official["x"], n_steps).max() < 0.6

    @pytest.mark.parametrize("n_steps", [4, 8, 12])
    @pytest.mark.parametrize("seed", [2, 3, 6])
    def test_no_larger_on_random_potentials(self, seed, n_steps):
        """Measured: 0.17 to 0.58."""
        assert self.ratios(strong(seed), self.ROWS, n_steps).max() < 0.7

    @pytest.mark.parametrize("n_steps", [4, 8, 12])
    def test_smaller_over_many_potentials_though_not_on_each(self, n_steps):
        """Largest of ten seeds: 1.61 (seed 0, transport, 4 steps), 1.13, 1.17; means 0.4 to 0.6."""
        ratios = np.array([self.ratios(strong(seed), self.ROWS, n_steps) for seed in range(10)])
        means = np.exp(np.log(ratios).mean(axis=0))
        assert means.max() < 0.75, ratios
        assert ratios.max() < 2, ratios


def mean_objective(scheme, potential):
    found = costs(potential, scheme, StandardNormal(2), X)
    return found.mean().objective(alpha=5.0, beta=0.3)


class TestAdjoint:
    @traces
    def test_matches_finite_differences(self, trace):
        """One random direction for every array; step 1e-5 leaves 1e-10 times a third derivative."""
        objective = eqx.filter_jit(mean_objective)
        gradient = eqx.filter_jit(eqx.filter_grad(lambda p, s: mean_objective(s, p)))
        p, scheme = strong(4), RK4(3, trace)
        slopes = jax.tree.leaves(gradient(p, scheme))
        leaves, tree = jax.tree.flatten(p)
        rng, step = np.random.default_rng(0), 1e-5
        for i, leaf in enumerate(leaves):
            direction = rng.standard_normal(leaf.shape)
            ends = [
                objective(
                    scheme, tree.unflatten([*leaves[:i], leaf + z * direction, *leaves[i + 1 :]])
                )
                for z in (step, -step)
            ]
            difference = float(ends[0] - ends[1]) / (2 * step)
            slope = float(np.vdot(slopes[i], direction))
            np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)
            assert p.c.shape == leaf.shape or abs(slope) > 1e-3

    def test_checkpointing_saves_memory_and_changes_nothing(self, monkeypatch):
        """Recomputed intermediates are the same numbers, up to fused arithmetic: 1e-12.

        More than 16 steps are recomputed.
        """

        def compiled():
            def run(p):
                return jax.value_and_grad(lambda p: mean_objective(RK4(17), p))(p)

            return jax.jit(run).lower(strong(4)).compile()

        with_checkpoints = compiled()
        monkeypatch.setattr(jax, "checkpoint", lambda step: step)
        without = compiled()
        a, b = (ravel_pytree(c(strong(4)))[0] for c in (with_checkpoints, without))
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())
        bytes_with, bytes_without = (
            c.memory_analysis().temp_size_in_bytes for c in (with_checkpoints, without)
        )
        assert bytes_with < 0.5 * bytes_without


class TestTrajectories:
    def test_start_at_x_and_end_where_push_does(self):
        path = RK4(4).trajectories(strong(0), jnp.asarray(X))
        assert path.shape == (5, 4, 2)
        np.testing.assert_array_equal(path[0], X)
        np.testing.assert_allclose(path[-1], push(RK4(4), strong(0), X).points, rtol=1e-13)

    def test_pass_through_the_right_times(self):
        """Straight lines at constant speed under the Gaussian base: rounding only."""
        mean, cov = np.zeros(2), np.diag([4.0, 0.25])
        path = RK4(4).trajectories(GaussianBase.solve(mean, cov, 1.0), jnp.asarray(X))
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
