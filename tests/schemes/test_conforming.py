"""The conforming scheme against by-hand Euler, autodiff, the Gaussian reference and its bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.evaluation import evaluate
from otflow.objective import costs
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.precision import cast
from otflow.reference import gaussian
from otflow.schemes import Conforming
from otflow.schemes.log_det import MARGIN
from otflow.targets import GaussianMixture, StandardNormal
from tests.support import random_resnet, resnet_by_the_book

pytestmark = pytest.mark.usefixtures("float64")

STEPS = (1, 2, 4)
steps = pytest.mark.parametrize("K", STEPS)
one_or_four = pytest.mark.parametrize("K", [1, 4])
MEAN, COV, ALPHA = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]]), 3.0
X = np.random.default_rng(0).standard_normal((6, 2))

push = eqx.filter_jit(lambda scheme, phi, x: scheme.push(phi, x))
pull = eqx.filter_jit(lambda scheme, phi, y: scheme.pull(phi, y))


def mild(dim=2, seed=0):
    """A nontrivial network under which every step is invertible near the data."""
    return random_resnet(dim, depth=1, seed=seed, scale=0.5)


def base():
    return GaussianBase.solve(MEAN, COV, ALPHA)


def bowl(curvature, dim=2):
    """Phi = curvature |x|^2 / 2: one step multiplies x by 1 - curvature."""
    zero = jax.tree.map(jnp.zeros_like, ResNetPotential.create(dim, 1, 0, jax.random.key(0)))
    A = jnp.sqrt(curvature) * jnp.eye(dim, dim + 1)
    return eqx.tree_at(lambda p: p.A, zero, jnp.concatenate([A, jnp.zeros((1, dim + 1))]))


def squeeze(dim=2):
    """Phi = |x|^2 / 2 - sum log cosh x_i: one step is tanh, whose range is bounded."""
    p = eqx.tree_at(lambda p: p.w, random_resnet(dim, width=dim, depth=0), -jnp.ones(dim))
    eye = jnp.eye(dim, dim + 1)
    p = eqx.tree_at(lambda p: (p.weights[0], p.biases[0]), p, (eye, jnp.zeros(dim)))
    return eqx.tree_at(lambda p: (p.A, p.b), p, (bowl(1.0, dim).A, jnp.zeros(dim + 1)))


def euler_by_hand(p, x, K):
    """SPEC 3 in NumPy at one point: end, log-det, transport, hjb."""
    log_det = transport = hjb = 0.0
    for k in range(K):
        phi = resnet_by_the_book(p, x, k / K)
        gradient, rate = phi.gradient[:-1], phi.gradient[-1]
        log_det += np.log(np.linalg.det(np.eye(x.size) - phi.hessian / K))
        transport += 0.5 * gradient @ gradient / K
        hjb += abs(rate - 0.5 * gradient @ gradient) / K
        x = x - gradient / K
    return *x, log_det, transport, hjb


class TestPush:
    @steps
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_is_eulers_method_by_hand(self, K, dim):
        p, x = mild(dim), np.random.default_rng(1).standard_normal((5, dim))
        found = push(Conforming(K), p, x)
        expected = np.array([euler_by_hand(p, point, K) for point in x])
        got = np.column_stack([found.points, found.log_det, found.transport, found.hjb])
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)
        assert found.valid.all()
        assert np.abs(expected[:, dim]).max() > 0.02

    @steps
    @pytest.mark.parametrize("dim", [1, 2, 3])
    def test_log_det_is_that_of_the_maps_jacobian(self, K, dim):
        p, x = mild(dim, seed=1), np.random.default_rng(2).standard_normal((5, dim))
        scheme = Conforming(K)
        jacobian = jax.jit(jax.vmap(jax.jacrev(lambda x: scheme.push(p, x[None]).points[0])))(x)
        sign, expected = np.linalg.slogdet(jacobian)
        assert (sign == 1).all()
        np.testing.assert_allclose(push(scheme, p, x).log_det, expected, atol=1e-10)

    def test_one_step_is_breniers_map(self):
        p = mild()
        expected = X - p.gradient(X, 0.0)[:, :-1]
        np.testing.assert_allclose(push(Conforming(1), p, X).points, expected, rtol=1e-14)

    def test_the_default_is_one_step(self):
        assert Conforming() == Conforming(1)

    @steps
    def test_trajectories_end_at_the_pushed_points(self, K):
        path = np.asarray(Conforming(K).trajectories(mild(), jnp.asarray(X)))
        assert path.shape == (K + 1, 6, 2)
        np.testing.assert_array_equal(path[0], X)
        np.testing.assert_allclose(path[-1], push(Conforming(K), mild(), X).points, rtol=1e-13)
        first = X - mild().gradient(X, 0.0)[:, :-1] / K
        np.testing.assert_allclose(path[1], first, rtol=1e-13, atol=1e-14)

    @one_or_four
    def test_gradient_of_the_costs_matches_finite_differences(self, K):
        """With and without the barrier, through the custom rule of log det; 1e-7."""
        p, target, step = mild(), StandardNormal(2), 1e-5
        for scheme in (Conforming(K), Conforming(K).for_training()):
            at = jax.jit(
                lambda p, scheme=scheme: costs(p, scheme, target, X).objective(3.0, 0.5).mean()
            )
            slope = jax.jit(jax.grad(at))(p)
            rng = np.random.default_rng(0)
            D = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), p)  # noqa: B023
            up, down = (jax.tree.map(lambda a, b, z=z: a + z * b, p, D) for z in (step, -step))
            difference = float(at(up) - at(down)) / (2 * step)
            pairs = zip(jax.tree.leaves(slope), jax.tree.leaves(D), strict=True)
            np.testing.assert_allclose(sum(np.vdot(a, b) for a, b in pairs), difference, rtol=1e-7)


class TestGaussianBase:
    """Straight lines at constant speed: Euler is exact at any K; rounding only."""

    exact = gaussian(MEAN, COV, ALPHA)

    @pytest.mark.parametrize("K", [1, 2, 3, 8])
    def test_map_and_costs_are_the_references(self, K):
        """Gauss-Hermite quadrature of quadratics with 4 nodes a coordinate is exact."""
        x, w = gauss_hermite(4)
        phi, scheme = base(), Conforming(K)
        found = push(scheme, phi, x)
        np.testing.assert_allclose(found.points, self.exact.map(x), atol=1e-12)
        np.testing.assert_allclose(w @ found.transport, self.exact.transport, rtol=1e-12)
        assert np.max(found.hjb) < 1e-12
        nll = -StandardNormal(2).log_prob(found.points) - found.log_det
        np.testing.assert_allclose(w @ nll - self.exact.entropy, self.exact.kl, atol=1e-12)

    @pytest.mark.parametrize("scale", [0.02, 0.2])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    @steps
    def test_no_potential_beats_the_exact_minimum(self, K, seed, scale):
        """J(theta) >= J*_alpha near the optimum, the hardest case: the excess is of second order.

        By quadrature, good to 1e-10 here, and by Monte Carlo within 4 standard errors of it.
        """
        phi = base() + random_resnet(2, depth=1, seed=seed, scale=scale)
        x, w = gauss_hermite(40)
        found = eqx.filter_jit(costs)(phi, Conforming(K), StandardNormal(2), x)
        J = w @ found.transport + ALPHA * (w @ found.nll - self.exact.entropy)
        assert J - self.exact.objective > 1e-6
        density = GaussianMixture([1.0], MEAN[None], COV[None])
        sampled = evaluate(Flow(phi, None, Conforming(K)), density, ALPHA, 2000, exact=self.exact)
        assert sampled.invalid == 0
        assert abs(sampled.objective.mean - J) < 4 * sampled.objective.standard_error
        assert sampled.objective.interval[1] >= self.exact.objective


def gauss_hermite(n):
    """Nodes (n^2, 2) and weights of the expectation under N(MEAN, COV)."""
    z, w = np.polynomial.hermite_e.hermegauss(n)
    grid = np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2)
    return MEAN + grid @ np.linalg.cholesky(COV).T, np.outer(w, w).ravel() / w.sum() ** 2


def steep(scale=1.0):
    """A ridge that folds the plane near x_1 = 0: 1 - 4 scale sech(2 x_1)^2 changes sign."""
    p = bowl(0.0)
    p = eqx.tree_at(lambda p: p.weights[0], p, jnp.array([[2.0, 0.0, 0.0]]))
    return eqx.tree_at(lambda p: p.w, p, jnp.array([scale]))


class TestNotInvertible:
    x = np.array([[0.0, 0.3], [0.2, -1.0], [9.0, 0.0]])

    @steps
    def test_scoring_says_so(self, K):
        """The third point is far from the fold and unharmed."""
        found = push(Conforming(K), steep(3.0), self.x)
        assert found.valid.tolist() == [False, False, True]
        assert np.isneginf(found.log_det[:2]).all()
        assert np.isfinite(found.log_det[2])
        for values in (found.points, found.transport, found.hjb):
            assert np.isfinite(values).all()
        log_prob = Flow(steep(3.0), None, Conforming(K)).log_prob(self.x)
        assert np.isneginf(log_prob[:2]).all()
        assert np.isfinite(log_prob[2])

    def test_both_eigenvalues_negative(self):
        """I - Hess = -2 I has determinant 4 and is not positive definite all the same."""
        found = push(Conforming(1), bowl(3.0), X)
        assert not found.valid.any()
        assert np.isneginf(found.log_det).all()

    def test_more_steps_make_it_invertible(self):
        assert push(Conforming(4), bowl(3.0), X).valid.all()

    @one_or_four
    def test_training_sees_a_finite_barrier(self, K):
        training = Conforming(K).for_training()
        assert training.n_steps == K
        found = push(training, steep(3.0), self.x)
        plain = push(Conforming(K), steep(3.0), self.x)
        assert np.isfinite(found.log_det).all()
        assert (found.log_det[:2] < -10).all()
        np.testing.assert_array_equal(found.points, plain.points)
        slope = jax.jit(jax.grad(lambda s: training.push(steep(s), self.x).log_det.sum()))(3.0)
        assert slope < 0
        assert np.isfinite(slope)


class TestViolation:
    @steps
    def test_zero_on_safe_maps(self, K):
        assert (np.asarray(Conforming(K).violation(mild(), jnp.asarray(X))) == 0).all()

    def test_is_the_shortfall_of_every_eigenvalue(self):
        """1 - 0.995 = 0.005 and 1 - 3 = -2, twice each in two dimensions."""
        for curvature in (0.995, 3.0):
            expected = 2 * ((MARGIN - (1 - curvature)) / MARGIN) ** 2
            found = Conforming(1).violation(bowl(curvature), jnp.asarray(X))
            np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_sums_over_the_steps(self):
        found = Conforming(2).violation(bowl(3.0), jnp.asarray(X))
        np.testing.assert_allclose(found, 2 * 2 * ((MARGIN + 0.5) / MARGIN) ** 2, rtol=1e-9)

    def test_only_at_the_points_concerned(self):
        found = np.asarray(Conforming(1).violation(steep(1.0), jnp.asarray(TestNotInvertible.x)))
        assert (found[:2] > 1).all()
        assert found[2] == 0


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
        np.testing.assert_allclose(back.hjb, forward.hjb, atol=1e-10)
        assert back.valid.all()

    @one_or_four
    def test_of_points_never_pushed(self, K):
        """Newton must travel: targets up to 10 standard deviations out."""
        y = 10 * X / np.linalg.norm(X, axis=1, keepdims=True)
        p, scheme = base() + mild(), Conforming(K)
        back = pull(scheme, p, y)
        assert back.valid.all()
        np.testing.assert_allclose(push(scheme, p, back.points).points, y, atol=1e-10)

    @one_or_four
    def test_round_trip_in_float32(self, K):
        flow = cast(Flow(base() + mild(), None, Conforming(K)), "float32")
        y = flow.forward(X)
        back = flow.pull(y)
        assert back.points.dtype == np.float32
        assert back.valid.all()
        np.testing.assert_allclose(back.points, X, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_hopeless_point_says_so(self, dtype):
        """tanh never reaches 3; beside it 0.5 is inverted as if alone."""
        flow = cast(Flow(squeeze(), None, Conforming(1)), dtype)
        found = flow.pull(np.array([[0.5, -0.5], [3.0, 0.0]]))
        assert found.valid.tolist() == [True, False]
        assert np.isfinite(found.points).all()
        expected = np.arctanh([0.5, -0.5])
        np.testing.assert_allclose(
            found.points[0], expected, rtol=1e-4 if dtype[-1] == "2" else 0, atol=1e-10
        )
        for values in (found.log_det, found.transport, found.hjb):
            assert not np.isnan(values).any()

    def test_an_inverse_where_the_map_folds_is_not_valid(self):
        """bowl(3) is x -> -2 x: Newton finds -y/2, but the step is not a valid one."""
        found = pull(Conforming(1), bowl(3.0), X)
        assert not found.valid.any()
        assert np.isfinite(found.points).all()

    def test_samples_and_their_density_agree(self):
        flow = Flow(base() + mild(), None, Conforming(2))
        drawn = flow.sample_and_log_prob(jax.random.key(0), 50)
        np.testing.assert_allclose(drawn.log_prob, flow.log_prob(drawn.samples), atol=1e-9)


def rms_distance(a, b):
    return float(np.sqrt(np.mean(np.square(np.asarray(a) - b))))


def test_the_model_density_integrates_to_one():
    """Exact change of variables: only the trapezoid rule's tails are left; 1e-8."""
    axis = np.linspace(-12, 12, 241)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(Flow(base() + mild(), None, Conforming(2)).log_prob(grid))
    np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1, atol=1e-8)


def test_has_no_integration_error_to_refine():
    assert Conforming(3).refined() is None


BAD_STEPS = {"zero": (0, ValueError), "fraction": (2.0, TypeError), "bool": (True, TypeError)}


@pytest.mark.parametrize(("n_steps", "error"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_bad_steps_are_rejected(n_steps, error):
    with pytest.raises(error, match=r"^n_steps: expected an integer"):
        Conforming(n_steps)
