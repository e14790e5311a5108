"""A flow as a map, a density and a sampler, in its own precision whatever JAX's setting is.

Most tests share the programs of one small network, one scheme and eight points; what depends on
the scheme's error has RK4.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow import Flow
from otflow.certificates import certify
from otflow.flow.evaluation import evaluate
from otflow.potentials import ConditionalResNet, ConvexStages, GaussianBase
from otflow.reference import gaussian
from otflow.schemes import RK4, Conforming
from otflow.support.precision import precision
from otflow.targets import GaussianMixture, StandardNormal
from tests.fakes import Translation
from tests.helpers import random_resnet, rms

KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((8, 2))


@functools.cache
def network(scale):
    """Parameters in float64."""
    with precision("float64"):
        return random_resnet(2, depth=0, seed=5, scale=scale)


def make_flow(scheme=None, target=None, dtype="float64", scale=1.0):
    """Parameters in float64 unless said otherwise; no context is left open."""
    with precision(dtype):
        potential = jax.tree.map(lambda v: jnp.asarray(np.asarray(v, dtype)), network(scale))
        return Flow(potential, target, scheme or Conforming(2))


def mixture():
    with precision("float64"):
        return GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 1.0]], [np.eye(2), 0.5 * np.eye(2)])


TARGETS = {"normal": lambda: None, "mixture": mixture}
both = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


def test_defaults():
    flow = Flow(network(1.0))
    assert isinstance(flow.target, StandardNormal)
    assert flow.target.dim == flow.dim == 2
    assert flow.scheme == Conforming(4)
    stages = ConvexStages.create(GaussianBase.solve(X.mean(0), np.cov(X.T), 1.0), 3, 4, KEY)
    assert Flow(stages).scheme == Conforming(3)


@pytest.mark.parametrize("n_steps", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_round_trip_is_exact_to_rounding(n_steps):
    """However few the steps: the inverse is that of the discrete map."""
    flow = make_flow(RK4(n_steps))
    y = np.asarray(flow.forward(X))
    assert rms(y - X) > 0.1
    np.testing.assert_allclose(flow.inverse(y), X, rtol=0, atol=1e-13)


def test_push_and_pull_are_the_scheme():
    flow = make_flow()
    with precision("float64"):
        expected = jax.jit(lambda p, x: (flow.scheme.push(p, x), flow.scheme.pull(p, x)))(
            flow.potential, X
        )
    pushed, pulled = flow.push(X), flow.pull(X)
    assert rms(np.asarray(pushed.points) - np.asarray(pulled.points)) > 0.1
    for got, by_scheme in zip((pushed, pulled), expected, strict=True):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(by_scheme), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(flow.forward(X), pushed.points)
    np.testing.assert_array_equal(flow.inverse(X), pulled.points)


def grid(half_width=8.0, n=33):
    axis = np.linspace(-half_width, half_width, n)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return points, (axis[1] - axis[0]) ** 2


@both
class TestDensity:
    """On a grid and at as many draws, so that one program serves both; 16 steps."""

    def test_integrates_to_one(self, target):
        """Trapezoid rule on a smooth density; the log-det error of 16 steps is what is left: 1e-4.

        A spacing of half a unit is enough for components of a deviation of 0.5 or more: 1e-8.
        """
        points, area = grid()
        density = np.exp(make_flow(RK4(16), target()).log_prob(points)) * area
        edge = np.abs(points).max(axis=1) > 7.9
        assert density[edge].sum() < 1e-8
        np.testing.assert_allclose(density.sum(), 1, atol=1e-4)

    def test_samples_come_with_their_log_prob(self, target):
        """Inverse and forward log-dets differ by the integration error: 1e-5 with 16 steps."""
        flow = make_flow(RK4(16), target())
        drawn = flow.sample_and_log_prob(jax.random.key(1), len(grid()[0]))
        np.testing.assert_allclose(drawn.log_prob, flow.log_prob(drawn.samples), atol=1e-5)

    def test_law_of_the_samples(self, target):
        """First and second moments against the density integrated on a grid.

        Within 4 standard errors: by chance 1 in 16,000 a figure, and the seed is fixed. The
        target's own second moments are further off.
        """
        flow, target = make_flow(RK4(16), target()), target() or StandardNormal(2)
        points, area = grid()
        n = len(points)
        density = np.exp(flow.log_prob(points)) * area

        def monomials(x):
            return np.column_stack([x, x**2, x[:, 0] * x[:, 1]])

        drawn = monomials(np.asarray(flow.sample_and_log_prob(jax.random.key(2), n).samples))
        expected = density @ monomials(points)
        error = np.abs(drawn.mean(axis=0) - expected)
        bound = 4 * drawn.std(axis=0) / np.sqrt(n)
        np.testing.assert_array_less(error, bound)
        mean, cov = target.moments()
        own = np.diagonal(cov) + mean**2
        np.testing.assert_array_less(bound[2:4], np.abs(expected[2:4] - own))


def test_samples_alone_are_those_that_come_with_their_log_prob():
    flow, key = make_flow(), jax.random.key(3)
    samples, _ = flow.sample_and_log_prob(key, 8)
    np.testing.assert_allclose(flow.sample(key, 8), samples, rtol=1e-10, atol=1e-12)


def test_log_prob_of_the_gaussian_flow_is_exact():
    """Under the base the model density is the pull-back of N(0, I) by the affine reference map.

    With 64 steps the log-det is good to 1e-8.
    """
    mean, cov = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.6]])
    exact = gaussian(mean, cov, 3.0)
    with precision("float64"):
        flow = Flow(GaussianBase.solve(mean, cov, 3.0), scheme=RK4(64))
    y, stretch = exact.map(X), np.prod(exact.mapped_stds / exact.stds)
    expected = -0.5 * np.sum(y**2, axis=1) - np.log(2 * np.pi) + np.log(stretch)
    np.testing.assert_allclose(flow.log_prob(X), expected, atol=1e-8)


def test_trajectories_start_at_x_and_end_at_forward():
    flow = make_flow()
    path = flow.trajectories(X)
    assert path.shape == (3, 8, 2)
    np.testing.assert_array_equal(path[0], X)
    np.testing.assert_allclose(path[-1], flow.forward(X), rtol=1e-13, atol=1e-14)


CALLS = {
    "forward": lambda flow, x: flow.forward(x),
    "inverse": lambda flow, x: flow.inverse(x),
    "log_prob": lambda flow, x: flow.log_prob(x),
    "trajectories": lambda flow, x: flow.trajectories(x),
    "sample": lambda flow, x: flow.sample(jax.random.key(0), 8),
    "sample_and_log_prob": lambda flow, x: flow.sample_and_log_prob(jax.random.key(0), 8),
}
INPUTS = {
    "float64 NumPy": lambda: X,
    "float32 NumPy": lambda: X.astype(np.float32),
    "default JAX": lambda: jnp.asarray(X),
    "lists": lambda: X.tolist(),
}


class TestPrecision:
    """JAX's x64 flag is off throughout, as it is for every user by default."""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
    def test_results_have_the_parameters_dtype(self, call, dtype):
        assert jnp.zeros(1).dtype == np.float32
        flow = make_flow(dtype=dtype)
        for leaf in jax.tree.leaves(call(flow, X)):
            assert leaf.dtype == dtype
        assert jnp.zeros(1).dtype == np.float32

    @pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
    def test_float64_flow_takes_any_input(self, x):
        flow = make_flow()
        for call in ("forward", "inverse", "log_prob", "trajectories"):
            got = getattr(flow, call)(x())
            assert got.dtype == np.float64
            # what a float32 input lost is lost: 1e-6
            np.testing.assert_allclose(got, getattr(flow, call)(X), rtol=1e-5, atol=1e-5)

    def test_float64_is_computed_not_just_labelled(self):
        """The same numbers as in an x64 context, to rounding, and not those of float32."""
        flow = make_flow()
        outside = np.asarray(flow.log_prob(X))
        with precision("float64"):
            inside = flow.log_prob(X)
        np.testing.assert_allclose(outside, inside, rtol=1e-13)
        assert rms(outside - np.asarray(make_flow(dtype="float32").log_prob(X))) > 1e-9

    def test_float32_flow_inside_a_float64_context(self):
        flow = make_flow(dtype="float32")
        expected = flow.log_prob(X)
        with precision("float64"):
            for call in ("log_prob", "forward", "trajectories"):
                assert getattr(flow, call)(X).dtype == np.float32
            np.testing.assert_allclose(flow.log_prob(X), expected, rtol=1e-5)


JITS = {
    "jax.jit": lambda flow: jax.jit(lambda x: flow.log_prob(x)),
    "eqx.filter_jit": lambda flow: lambda x: eqx.filter_jit(lambda f, x: f.log_prob(x))(flow, x),
    "jax.vmap": lambda flow: jax.jit(jax.vmap(lambda x: flow.log_prob(x[None])[0])),
}


@pytest.mark.parametrize("jit", JITS.values(), ids=JITS)
@pytest.mark.parametrize(
    ("context", "dtype"),
    [("float64", "float64"), ("float64", "float32")],
)
def test_transformations(jit, context, dtype):
    """Inside an outer transformation: the parameters' dtype, the same values."""
    flow = make_flow(dtype=dtype)
    expected = flow.log_prob(X)
    with precision(context):
        got = jit(flow)(X)
    assert got.dtype == expected.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_transformations_outside_a_compiled_function():
    """log rho(x) = log N(x + shift): its slope is -(x + shift), to float32 rounding."""
    shift = np.array([1.0, -2.0], np.float32)
    flow = Flow(Translation(jnp.asarray(shift)), scheme=RK4(1))
    score = jax.vmap(jax.grad(lambda x: flow.log_prob(x[None])[0]))(X.astype(np.float32))
    np.testing.assert_allclose(score, -(X + shift), atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_gradient_of_log_prob_matches_finite_differences():
    flow, step = make_flow(), 1e-5
    score = jax.jit(jax.grad(lambda x: flow.log_prob(x).sum()))(X)
    for j, e in enumerate(step * np.eye(2)):
        up, down = (np.asarray(flow.log_prob(X + z * e)) for z in (1, -1))
        np.testing.assert_allclose(score[:, j], (up - down) / (2 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("method", ["push", "forward", "log_prob", "trajectories"])
@pytest.mark.parametrize("shape", [(3, 3), (2,), (1, 3, 2)], ids=str)
def test_points_of_another_shape_are_rejected(method, shape):
    with pytest.raises(ValueError, match=r"^x: expected shape \(n, 2\); got"):
        getattr(make_flow(), method)(np.zeros(shape))


@pytest.mark.parametrize("method", ["pull", "inverse"])
def test_target_points_of_another_shape_are_rejected(method):
    with pytest.raises(ValueError, match=r"^y: expected shape \(n, 2\); got \(3, 3\)"):
        getattr(make_flow(), method)(np.zeros((3, 3)))


def test_target_of_another_dimension_is_rejected():
    with pytest.raises(ValueError, match=r"^target: expected dimension 2, the potential's; got 3"):
        Flow(network(1.0), StandardNormal(3))


class TestLogProbWithError:
    def test_rk4_error_is_that_of_doubled_steps(self):
        flow, fine = make_flow(RK4(4)), make_flow(RK4(8))
        found = flow.log_prob_with_error(X)
        np.testing.assert_array_equal(found.log_prob, flow.log_prob(X))
        expected = np.abs(np.asarray(flow.log_prob(X)) - np.asarray(fine.log_prob(X)))
        np.testing.assert_allclose(found.error, expected, rtol=1e-9, atol=1e-14)
        assert 1e-8 < np.asarray(found.error).max() < 1

    def test_rk4_error_bar_holds_the_truth(self):
        """Fourth order: the error of 8 steps is a sixteenth of the bar's; 64 are the truth."""
        found = make_flow(RK4(4)).log_prob_with_error(X)
        error = np.abs(np.asarray(found.log_prob) - np.asarray(make_flow(RK4(64)).log_prob(X)))
        assert (error <= 1.5 * np.asarray(found.error) + 1e-9).all()

    @pytest.mark.parametrize(("dtype", "size"), [("float32", 1e-5), ("float64", 1e-14)])
    def test_without_integration_error_it_is_rounding(self, dtype, size):
        with precision(dtype):
            potential = GaussianBase.solve(np.array([1.0, -0.5]), np.diag([2.0, 0.6]), 3.0)
        found = Flow(potential, None, Conforming(2)).log_prob_with_error(X)
        assert found.log_prob.dtype == found.error.dtype == dtype
        assert 0 < np.asarray(found.error).max() < size

    def test_points_that_are_not_invertible(self):
        """-inf in both precisions: no NaN."""
        found = make_flow(scale=3.0).log_prob_with_error(X)
        assert np.isneginf(found.log_prob).any()
        assert not np.isnan(found.error).any()


class TestCondition:
    """A conditional flow against one flow a condition."""

    C = np.random.default_rng(1).standard_normal((8, 3))

    @staticmethod
    def flow(scheme=None, dtype="float64"):
        with precision(dtype):
            rng = np.random.default_rng(4)
            C, G = (jnp.asarray(rng.standard_normal((rows, 3)), dtype) for rows in (6, 3))
            plain = make_flow(dtype=dtype, scale=0.3)
            return Flow(ConditionalResNet(plain.potential, C, G), None, scheme or plain.scheme)

    @pytest.mark.parametrize(
        "scheme",
        [
            pytest.param(Conforming(2), id="conforming"),
            pytest.param(RK4(2), id="rk4", marks=pytest.mark.slow),
        ],
    )
    def test_every_point_has_its_own(self, scheme):
        flow = self.flow(scheme)
        assert flow.condition_dim == 3
        pushed, log_prob = flow.push(X, self.C), flow.log_prob(X, self.C)
        pulled = flow.pull(X, self.C)
        path = flow.trajectories(X, self.C)
        assert bool((pushed.valid & pulled.valid).all())
        pushed, pulled, log_prob, path = jax.tree.map(np.asarray, (pushed, pulled, log_prob, path))
        for i in (0, 5):
            one = flow.given(self.C[i])
            for whole, alone in ((pushed, one.push(X)), (pulled, one.pull(X))):
                for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(alone), strict=True):
                    np.testing.assert_allclose(a[i], np.asarray(b)[i], rtol=1e-10, atol=1e-11)
            np.testing.assert_allclose(log_prob[i], np.asarray(one.log_prob(X))[i], rtol=1e-12)
            alone = np.asarray(one.trajectories(X[i : i + 1]))
            np.testing.assert_allclose(path[:, i], alone[:, 0], rtol=1e-12)
        np.testing.assert_allclose(flow.inverse(pushed.points, self.C), X, atol=1e-12)
        np.testing.assert_array_equal(flow.forward(X, self.C), pushed.points)

    def test_one_for_all_points(self):
        flow, c = self.flow(), self.C[0]
        tiled = np.tile(c, (8, 1))
        np.testing.assert_allclose(flow.log_prob(X, c), flow.log_prob(X, tiled), rtol=1e-12)
        key = jax.random.key(0)
        samples, log_prob = flow.sample_and_log_prob(key, 8, c)
        np.testing.assert_allclose(flow.sample(key, 8, tiled), samples, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(flow.log_prob(samples, c), log_prob, rtol=1e-9)
        own, error = flow.log_prob_with_error(X, c)
        np.testing.assert_allclose(own, flow.log_prob(X, c), rtol=1e-12)
        assert np.asarray(error).max() < 1e-9

    def test_the_density_given_a_condition_integrates_to_one(self):
        x, cell = grid()
        flow = self.flow()
        for c in self.C[:2]:
            assert np.exp(flow.log_prob(x, c)).sum() * cell == pytest.approx(1, abs=1e-3)

    def test_float32_conditions_are_float32(self):
        assert self.flow(dtype="float32").log_prob(X, self.C).dtype == np.float32

    @pytest.mark.parametrize("condition", [None, C[:5], C[:, :2], C[0, :2], 1.0])
    def test_other_conditions_are_rejected(self, condition):
        flow = self.flow()
        for method in ("forward", "inverse", "log_prob", "trajectories"):
            with pytest.raises(ValueError, match=r"^condition: expected shape \(8, 3\) or \(3,\)"):
                getattr(flow, method)(X, condition)
        with pytest.raises(ValueError, match=r"^condition: expected shape"):
            flow.sample(jax.random.key(0), 8, condition)

    def test_a_flow_without_conditions_takes_none(self):
        flow = make_flow()
        assert flow.condition_dim == 0
        for call in (lambda: flow.log_prob(X, self.C), lambda: flow.given(self.C[0])):
            with pytest.raises(ValueError, match=r"^condition: expected none"):
                call()

    def test_given_takes_one_condition(self):
        with pytest.raises(ValueError, match=r"^condition: expected shape \(3,\); got .*8, 3"):
            self.flow().given(self.C)

    @pytest.mark.parametrize(
        "use",
        [
            lambda flow: certify(flow, np.zeros((50, 2))),
            lambda flow: evaluate(flow, StandardNormal(2), 1.0, n=1000),
        ],
        ids=["certify", "evaluate"],
    )
    def test_certificates_and_evaluation_ask_for_a_given_one(self, use):
        with pytest.raises(ValueError, match=r"^flow: expected an unconditional flow; .*given"):
            use(self.flow())
