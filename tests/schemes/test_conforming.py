"""The conforming scheme against by-hand Euler, autodiff, the Gaussian reference and its bound.

A number of steps is a program, and so is a shape: 1 and 2 steps stand for all, 4 are slow, and all
rows go in blocks of 64.
"""

import dataclasses
import functools

import equinox as eqx
import jax
import numpy as np
import pytest

from otflow import Flow
from otflow.estimator.building import make_scheme
from otflow.flow.evaluation import evaluate
from otflow.flow.objective import costs
from otflow.potentials import GaussianBase
from otflow.reference import gaussian
from otflow.schemes import RK4, Conforming
from otflow.schemes.log_det import MARGIN
from otflow.support.precision import precision
from otflow.targets import GaussianMixture, StandardNormal
from tests.helpers import random_resnet, resnet_by_the_book

pytestmark = pytest.mark.usefixtures("float64")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


steps = pytest.mark.parametrize("K", [1, 2, slow(4)])
several = pytest.mark.parametrize("K", [slow(1), 2, slow(4)])
MEAN, COV, ALPHA = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]]), 3.0
X = np.random.default_rng(0).standard_normal((6, 2))

_push = eqx.filter_jit(lambda scheme, phi, x: scheme.push(phi, x))
_pull = eqx.filter_jit(lambda scheme, phi, y: scheme.pull(phi, y))
_violation = eqx.filter_jit(lambda scheme, phi, x: scheme.violation(phi, x))


def in_64s(mapped, scheme, phi, x):
    """mapped(scheme, phi, x) as NumPy arrays, block by block; the last row fills the last block."""
    rows = np.pad(x, ((0, -len(x) % 64), (0, 0)), mode="edge")
    parts = [mapped(scheme, phi, block) for block in rows.reshape(-1, 64, x.shape[1])]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(x)], *parts)


push = functools.partial(in_64s, _push)
pull = functools.partial(in_64s, _pull)
violation = functools.partial(in_64s, _violation)


def mild(dim=2, seed=0):
    """A nontrivial network under which every step is invertible near the data."""
    return random_resnet(dim, depth=1, seed=seed, scale=0.5)


def base():
    return GaussianBase.solve(MEAN, COV, ALPHA)


def ridges(weights, w, curvature):
    """sum_i w_i log(2 cosh(weights_i'x)) + curvature |x|^2 / 2, of the shapes of `mild`."""
    silent = jax.tree.map(np.zeros_like, mild())
    K, full = silent.weights[0].copy(), silent.w.copy()
    K[: len(w), :2], full[: len(w)] = weights, w
    A = np.sqrt(curvature) * np.diag([1.0, 1.0, 0.0])
    return dataclasses.replace(silent, weights=(K, silent.weights[1]), w=full, A=A)


def bowl(curvature):
    """Phi = curvature |x|^2 / 2: one step multiplies x by 1 - curvature."""
    return ridges(np.zeros((1, 2)), [0.0], curvature)


def squeeze():
    """Phi = |x|^2 / 2 - sum log cosh x_i: one step is tanh, whose range is bounded."""
    return ridges(np.eye(2), [-1.0, -1.0], 1.0)


def euler_by_hand(p, x, K):
    """SPEC 3 in NumPy at one point: end, log-det, transport, straightness."""
    log_det, transport, start = 0.0, 0.0, x
    for k in range(K):
        phi = resnet_by_the_book(p, x, k / K)
        gradient = phi.gradient[:-1]
        log_det += np.log(np.linalg.det(np.eye(x.size) - phi.hessian / K))
        transport += 0.5 * gradient @ gradient / K
        x = x - gradient / K
    return *x, log_det, transport, 2 * transport - (x - start) @ (x - start)


class TestPush:
    @steps
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_is_eulers_method_by_hand(self, K, dim):
        p, x = mild(dim), np.random.default_rng(1).standard_normal((5, dim))
        found = push(Conforming(K), p, x)
        expected = np.array([euler_by_hand(p, point, K) for point in x])
        got = np.column_stack([found.points, found.log_det, found.transport, found.straightness])
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
        assert found.valid.all()
        assert np.abs(expected[:, dim]).max() > 0.02

    @steps
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_log_det_is_that_of_the_maps_jacobian(self, K, dim):
        """By differences of fourth order in steps of 1e-3: 1e-12."""
        p, x = mild(dim, seed=1), np.random.default_rng(2).standard_normal((5, dim))
        scheme, jacobian = Conforming(K), np.empty((5, dim, dim))
        for j, step in enumerate(1e-3 * np.eye(dim)):
            rows = np.concatenate([x + k * step for k in (-2, -1, 1, 2)])
            a, b, c, d = np.split(push(scheme, p, rows).points, 4)
            jacobian[:, :, j] = (8 * (c - b) - (d - a)) / 12e-3
        sign, expected = np.linalg.slogdet(jacobian)
        assert (sign == 1).all()
        np.testing.assert_allclose(push(scheme, p, x).log_det, expected, rtol=0, atol=1e-10)

    def test_one_step_is_breniers_map(self):
        p = mild()
        expected = X - start_gradient(p)[:, :-1]
        np.testing.assert_allclose(push(Conforming(1), p, X).points, expected, rtol=1e-14)

    def test_the_default_is_the_estimators(self):
        assert Conforming() == Conforming(4) == make_scheme("conforming", None)
        assert RK4() == make_scheme("rk4", None)

    @steps
    def test_trajectories_end_at_the_pushed_points(self, K):
        path = np.asarray(jax.jit(lambda p: Conforming(K).trajectories(p, X))(mild()))
        assert path.shape == (K + 1, 6, 2)
        np.testing.assert_array_equal(path[0], X)
        np.testing.assert_allclose(path[-1], push(Conforming(K), mild(), X).points, rtol=1e-13)
        first = X - start_gradient(mild())[:, :-1] / K
        np.testing.assert_allclose(path[1], first, rtol=1e-13, atol=1e-14)

    @several
    def test_gradient_of_the_costs_matches_finite_differences(self, K):
        """With and without the barrier, through the custom rule of log det; 1e-7."""
        p, target, step = jax.tree.map(np.asarray, mild()), StandardNormal(2), 1e-5
        for scheme in (Conforming(K), Conforming(K).for_training()):

            def objective(p, scheme=scheme):
                return costs(p, scheme, target, X).objective(3.0, 0.5).mean()

            at = jax.jit(jax.value_and_grad(objective))
            slope = at(p)[1]
            rng = np.random.default_rng(0)
            D = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), p)  # noqa: B023
            up, down = (jax.tree.map(lambda a, b, z=z: a + z * b, p, D) for z in (step, -step))
            difference = float(at(up)[0] - at(down)[0]) / (2 * step)
            pairs = zip(jax.tree.leaves(slope), jax.tree.leaves(D), strict=True)
            np.testing.assert_allclose(sum(np.vdot(a, b) for a, b in pairs), difference, rtol=1e-7)


@jax.jit
def start_gradient(phi):
    return phi.gradient(X, 0.0)


def target_nll(pushed):
    return 0.5 * (pushed.points**2).sum(axis=1) + np.log(2 * np.pi) - pushed.log_det


class TestGaussianBase:
    """Straight lines at constant speed: Euler is exact at any K; rounding only."""

    exact = gaussian(MEAN, COV, ALPHA)

    @pytest.mark.parametrize("K", [1, 2, slow(3), slow(8)])
    def test_map_and_costs_are_the_references(self, K):
        """Gauss-Hermite quadrature of quadratics with 4 nodes a coordinate is exact."""
        x, w = gauss_hermite(4)
        phi, scheme = base(), Conforming(K)
        found = push(scheme, phi, x)
        np.testing.assert_allclose(found.points, self.exact.map(x), atol=1e-12)
        np.testing.assert_allclose(w @ found.transport, self.exact.transport, rtol=1e-12)
        assert np.max(found.straightness) < 1e-12
        assert found.hjb is None  # between the steps there is no Phi to speak of
        np.testing.assert_allclose(
            w @ target_nll(found) - self.exact.entropy, self.exact.kl, atol=1e-12
        )

    def near(self, seed, scale):
        return base() + random_resnet(2, depth=1, seed=seed, scale=scale)

    def objective(self, phi, K):
        """By quadrature, good to 1e-10 here."""
        x, w = gauss_hermite(40)
        found = push(Conforming(K), phi, x)
        return w @ found.transport + ALPHA * (w @ target_nll(found) - self.exact.entropy)

    @pytest.mark.parametrize("scale", [0.02, 0.2])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @steps
    def test_no_potential_beats_the_exact_minimum(self, K, seed, scale):
        """J(theta) >= J*_alpha near the optimum, where the excess is of second order."""
        assert self.objective(self.near(seed, scale), K) - self.exact.objective > 1e-6

    @pytest.mark.parametrize("scale", [0.02, 0.2])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @several
    def test_an_evaluation_is_within_its_error(self, K, seed, scale):
        """Monte Carlo within 4 standard errors of the quadrature, and its bound holds."""
        phi = self.near(seed, scale)
        density = GaussianMixture([1.0], MEAN[None], COV[None])
        sampled = evaluate(Flow(phi, None, Conforming(K)), density, ALPHA, 2000, exact=self.exact)
        assert sampled.invalid == 0
        error = sampled.objective.standard_error
        assert abs(sampled.objective.mean - self.objective(phi, K)) < 4 * error
        assert sampled.objective.interval[1] >= self.exact.objective


def gauss_hermite(n):
    """Nodes (n^2, 2) and weights of the expectation under N(MEAN, COV)."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    grid = np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2)
    return MEAN + grid @ np.linalg.cholesky(COV).T, np.outer(w, w).ravel() / w.sum() ** 2


def steep(scale=1.0):
    """A ridge that folds the plane near x_1 = 0: 1 - 4 scale sech(2 x_1)^2 changes sign."""
    return ridges([[2.0, 0.0]], [scale], 0.0)


class TestNotInvertible:
    x = np.array([[0.0, 0.3], [0.2, -1.0], [9.0, 0.0]])

    @steps
    def test_scoring_says_so(self, K):
        """The third point is far from the fold and unharmed."""
        found = push(Conforming(K), steep(3.0), self.x)
        assert found.valid.tolist() == [False, False, True]
        assert np.isneginf(found.log_det[:2]).all()
        assert np.isfinite(found.log_det[2])
        for values in (found.points, found.transport, found.straightness):
            assert np.isfinite(values).all()

    @several
    def test_the_density_is_zero_there(self, K):
        log_prob = Flow(steep(3.0), None, Conforming(K)).log_prob(self.x)
        assert np.isneginf(log_prob[:2]).all()
        assert np.isfinite(log_prob[2])

    def test_both_eigenvalues_negative(self):
        """I - Hess = -2 I has determinant 4 and is not positive definite all the same."""
        found = push(Conforming(1), bowl(3.0), X)
        assert not found.valid.any()
        assert np.isneginf(found.log_det).all()

    def test_more_steps_make_it_invertible(self):
        assert not push(Conforming(1), bowl(1.5), X).valid.any()
        assert push(Conforming(2), bowl(1.5), X).valid.all()

    @several
    def test_training_sees_a_finite_barrier(self, K):
        training = Conforming(K).for_training()
        assert training.n_steps == K

        def total(p):
            found = training.push(p, self.x)
            return found.log_det.sum(), found

        (_, found), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(steep(3.0))
        plain = push(Conforming(K), steep(3.0), self.x)
        assert np.isfinite(found.log_det).all()
        assert (np.asarray(found.log_det)[:2] < -10).all()
        np.testing.assert_array_equal(found.points, plain.points)
        steeper = np.asarray(slope.w)[0]
        assert steeper < 0
        assert np.isfinite(steeper)


class TestViolation:
    @steps
    def test_zero_on_safe_maps(self, K):
        assert (violation(Conforming(K), mild(), X) == 0).all()

    def test_is_the_shortfall_of_every_eigenvalue(self):
        """1 - 0.995 = 0.005 and 1 - 3 = -2, twice each in two dimensions."""
        for curvature in (0.995, 3.0):
            expected = 2 * ((MARGIN - (1 - curvature)) / MARGIN) ** 2
            found = violation(Conforming(1), bowl(curvature), X)
            np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_sums_over_the_steps(self):
        found = violation(Conforming(2), bowl(3.0), X)
        np.testing.assert_allclose(found, 2 * 2 * ((MARGIN + 0.5) / MARGIN) ** 2, rtol=1e-9)

    def test_only_at_the_points_concerned(self):
        found = violation(Conforming(1), steep(1.0), TestNotInvertible.x)
        assert (found[:2] > 1).all()
        assert found[2] == 0


def rounded(phi, dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), phi)


class TestPull:
    @steps
    def test_round_trip(self, K):
        p, scheme = base() + mild(), Conforming(K)
        forward = push(scheme, p, X)
        back = pull(scheme, p, forward.points)
        assert rms_distance(forward.points, X) > 0.1
        np.testing.assert_allclose(back.points, X, rtol=0, atol=1e-10)
        np.testing.assert_allclose(back.log_det, -forward.log_det, rtol=0, atol=1e-10)
        np.testing.assert_allclose(back.transport, forward.transport, atol=1e-10)
        np.testing.assert_allclose(back.straightness, forward.straightness, atol=1e-10)
        assert back.valid.all()

    @steps
    def test_of_points_never_pushed(self, K):
        """Newton must travel: targets up to 10 standard deviations out."""
        y = 10 * X / np.linalg.norm(X, axis=1, keepdims=True)
        p, scheme = base() + mild(), Conforming(K)
        back = pull(scheme, p, y)
        assert back.valid.all()
        np.testing.assert_allclose(push(scheme, p, back.points).points, y, atol=1e-10)

    @several
    def test_round_trip_in_float32(self, K):
        phi, x = rounded(base() + mild(), "float32"), X.astype(np.float32)
        with precision("float32"):
            back = pull(Conforming(K), phi, push(Conforming(K), phi, x).points)
        assert back.points.dtype == np.float32
        assert back.valid.all()
        np.testing.assert_allclose(back.points, X, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_hopeless_point_says_so(self, dtype):
        """tanh never reaches 3; beside it 0.5 is inverted as if alone."""
        y = np.array([[0.5, -0.5], [3.0, 0.0]], dtype)
        phi = rounded(squeeze(), dtype)
        with precision(dtype):
            found = pull(Conforming(1), phi, y)
        assert found.points.dtype == dtype
        assert found.valid.tolist() == [True, False]
        assert np.isfinite(found.points).all()
        expected = np.arctanh([0.5, -0.5])
        np.testing.assert_allclose(
            found.points[0], expected, rtol=1e-4 if dtype[-1] == "2" else 0, atol=1e-10
        )
        for values in (found.log_det, found.transport, found.straightness):
            assert not np.isnan(values).any()

    def test_an_inverse_where_the_map_folds_is_not_valid(self):
        """bowl(3) is x -> -2 x: Newton finds -y/2, but the step is not a valid one."""
        found = pull(Conforming(1), bowl(3.0), X)
        assert not found.valid.any()
        assert np.isfinite(found.points).all()

    def test_samples_and_their_density_agree(self):
        flow = Flow(base() + mild(), None, Conforming(1))
        drawn = flow.sample_and_log_prob(jax.random.key(0), 64)
        np.testing.assert_allclose(drawn.log_prob, flow.log_prob(drawn.samples), atol=1e-9)


def rms_distance(a, b):
    return float(np.sqrt(np.mean(np.square(np.asarray(a) - b))))


def test_the_model_density_integrates_to_one():
    """Exact change of variables: only the trapezoid rule's tails are left; 1e-8."""
    axis = np.linspace(-12, 12, 121)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(-target_nll(push(Conforming(2), base() + mild(), grid)))
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1, atol=1e-8)


def test_has_no_integration_error_to_refine():
    assert Conforming(3).refined() is None


BAD_STEPS = {"zero": (0, ValueError), "fraction": (2.0, TypeError), "bool": (True, TypeError)}


@pytest.mark.parametrize(("n_steps", "error"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_bad_steps_are_rejected(n_steps, error):
    with pytest.raises(error, match=r"^n_steps: expected an integer"):
        Conforming(n_steps)
