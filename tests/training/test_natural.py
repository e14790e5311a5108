"""Natural-gradient steps against explicit loops, quadrature, and a problem solved exactly."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from otflow.data.rows import Rows, spread
from otflow.flow.objective import costs, nll
from otflow.potentials import ConditionalResNet, GaussianBase, ResNetPotential
from otflow.reference import gaussian
from otflow.schemes import Conforming
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training.natural import (
    MOST_PARAMETERS,
    NaturalConfig,
    NaturalDescent,
    PointModel,
    natural_step,
    start_state,
)
from otflow.training.step import split_trainable
from tests.fakes import Translation
from tests.helpers import random_resnet
from tests.training.glide import Glide

pytestmark = pytest.mark.usefixtures("float64")

TARGET = StandardNormal(2)


def points(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2))


CONFIG = NaturalConfig(alpha=3.0, max_iter=10)


def descend(potential, scheme=None, config=CONFIG, log_density=None):
    return NaturalDescent(potential, scheme or Conforming(1), TARGET, config, log_density)


def log_ratio_and_transport(unravel, static, log_density, flat, point):
    found = costs(eqx.combine(unravel(flat), static), Conforming(2), TARGET, point[None])
    return found.nll[0] + log_density(point[None])[0], found.transport[0]


@functools.cache
def ingredients():
    """Potential, points, log rho0, flat parameters; log ratio, its score, transport's slope."""
    potential = random_resnet(2, width=3, depth=0, scale=0.4)
    x, density = points(500), GaussianMixture([1.0], [[0.2, 0.0]], [1.1 * np.eye(2)])
    params, static = split_trainable(potential)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    terms = functools.partial(log_ratio_and_transport, unravel, static, density.log_prob)

    @jax.jit
    @jax.vmap
    def at(point):
        (u, _), pull = jax.vjp(lambda flat: terms(flat, point), flat)
        return u, pull((1.0, 0.0))[0], pull((0.0, 1.0))[0]

    u, scores, slopes = map(np.asarray, at(x))
    return potential, x, density.log_prob, np.asarray(flat), u, scores, slopes


@functools.cache
def bold(known=True):
    """Descents whose steps are as long as `largest_kl` lets them."""
    potential, _, log_density, *_ = ingredients()
    log_density = log_density if known else None
    config = NaturalConfig(alpha=3.0, max_iter=10, step=0.5, largest_kl=1e-4, damping=1e-3)
    return descend(potential, Conforming(2), config, log_density)


class TestOneStep:
    """500 points, two chunks: every ingredient of the first step written out with loops."""

    def descent(self, flat, known=True):
        """At the start, from any parameters; the program is compiled once."""
        bold(known).state = start_state(flat)
        return bold(known)

    @pytest.mark.parametrize("known", [False, True])
    def test_by_hand(self, known):
        _, x, _, flat, u, scores, slopes = ingredients()
        descent = self.descent(flat, known)
        descent.step(x)
        fisher = sum(np.outer(s, s) for s in scores) / 500
        np.testing.assert_allclose(descent.state.fisher, fisher, rtol=1e-9, atol=1e-12)
        e = np.exp(-u)
        assert np.std(e) > 0.01
        if known:
            found = np.asarray(descent.state.moments)
            np.testing.assert_allclose(found, [e.mean(), (e**2).mean()], rtol=1e-9)
        weight = 1 - e.sum() / (e @ e) * e if known else np.ones(500)
        gradient = slopes.mean(axis=0) + 3.0 * (weight @ scores) / 500
        matrix = fisher + 1e-3 * np.trace(fisher) / flat.size * np.eye(flat.size)
        direction = np.linalg.solve(matrix, gradient / 3.0)
        kl = 0.5 * direction @ fisher @ direction
        assert kl > 1e-4
        expected = flat - 0.5 / 5 * np.sqrt(1e-4 / kl) * direction  # a fifth: warm-up
        np.testing.assert_allclose(descent.state.flat, expected, rtol=1e-6, atol=1e-8)
        assert descent.iteration == 1

    def test_a_step_on_too_few_points_is_not_taken(self):
        """Their Fisher information is singular: along its null space a step has no end."""
        potential, x, log_density, flat, *_ = ingredients()
        config = NaturalConfig(alpha=3.0, max_iter=10, damping=1e-30)
        descent = descend(potential, Conforming(2), config, log_density)
        descent.step(x[:4])
        assert descent.failed == 1
        np.testing.assert_array_equal(descent.state.flat, flat)

    def test_starts_from_the_potential(self):
        potential, _, log_density, flat, *_ = ingredients()
        descent = descend(potential, Conforming(2), log_density=log_density)
        np.testing.assert_array_equal(descent.state.flat, flat)
        for a, b in zip(*map(jax.tree.leaves, (potential, descent.potential)), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_fisher_information_is_a_running_average(self):
        _, x, _, flat, *_ = ingredients()
        descent = self.descent(flat)
        descent.step(x)
        first, middle = np.asarray(descent.state.fisher), np.asarray(descent.state.flat)
        descent.step(x + 0.5)
        both = np.asarray(descent.state.fisher)
        descent = self.descent(middle)
        descent.step(x + 0.5)
        alone = np.asarray(descent.state.fisher)
        np.testing.assert_allclose(both, 0.5 * (first + alone), rtol=1e-9, atol=1e-12)
        assert not np.allclose(first, alone)


class Fenced(Glide):
    """Violation |shift - 1|^2 x_1^2 where it leans. Not invertible

    - anywhere once |shift| exceeds `radius`,
    - at points with x_1 > `wall`, or 9 < |x_1| < 11 where it is `banded`, once anything moves.
    """

    leans: Any = False
    radius: Any = np.inf
    wall: Any = np.inf
    banded: Any = False

    def violation(self, potential, x):
        return self.leans * jnp.sum((potential.shift - 1) ** 2) * x[:, 0] ** 2

    def push(self, potential, x):
        pushed = super().push(potential, x)
        moved = jnp.any(potential.shift != 0)
        bad = jnp.sum(potential.shift**2) > self.radius**2
        bad |= moved & (x[:, 0] > self.wall)
        bad |= moved & (jnp.abs(jnp.abs(x[:, 0]) - 10) < 1) & self.banded
        log_det = jnp.where(bad, -jnp.inf, pushed.log_det)
        return eqx.tree_at(lambda p: (p.log_det, p.valid), pushed, (log_det, ~bad))


N, NOWHERE = 252, np.zeros((2, 2))
FENCED = {"leans": False, "radius": np.inf, "wall": np.inf, "banded": False}


@functools.cache
def fenced_step():
    """One compiled step of a translation for all of `FENCED`, with two guard points."""
    config = NaturalConfig(max_iter=10, largest_kl=1e6, damping=1e-3)

    @jax.jit
    def take(fences, alpha, guard, shift, x):
        model = PointModel(Translation, Fenced(1, **fences), TARGET, guard=guard)
        return natural_step(model, config, alpha, start_state(shift), x)

    return take


def after_a_step(x, alpha, start=(0.0, 0.0), guard=NOWHERE, **fences):
    """The shift after one step on N points; the guard leans on nothing where x_1 = 0."""
    fences = jax.tree.map(np.asarray, FENCED | fences)
    state = fenced_step()(fences, alpha, np.asarray(guard, float), np.array(start), x)
    assert int(state.iteration) == 1
    return np.asarray(state.flat)


def leaning_step(x, lean):
    """By hand, alpha 2: transport |s|^2 / 2 is flat at 0, Fisher (x + s)(x + s)'."""
    fisher = x.T @ x / N
    gradient = np.mean(x, axis=0) - 2 * np.ones(2) * lean
    matrix = fisher + 1e-3 * np.trace(fisher) / 2 * np.eye(2)
    return -0.1 * np.linalg.solve(matrix, gradient)


def test_the_violation_enters_the_gradient():
    """A scheme whose violation is |shift - 1|^2 x_1^2, with alpha."""
    x = points(N)
    found = after_a_step(x, 2.0, leans=True)
    expected = leaning_step(x, np.mean(spread(x)[:, 0] ** 2))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


class TestBacktracking:
    """Data at (3, 3): the step wants to go to -alpha/(1 + alpha) (3, 3)."""

    def moved(self, radius):
        return float(np.linalg.norm(after_a_step(points(N) + 3.0, 3.0, radius=radius)))

    def test_a_step_that_is_nowhere_valid_leaves_the_parameters(self):
        assert self.moved(0.0) == 0.0

    def test_a_step_is_shortened_until_it_is_valid(self):
        free = self.moved(1e9)
        radius = 0.4 * free
        assert 0.05 * radius < self.moved(radius) <= radius

    def test_points_already_invalid_do_not_stop_it(self):
        """A start outside: nothing gets worse, the transport alone moves it towards 0."""
        found = after_a_step(points(N), 3.0, start=(1.0, 1.0), radius=0.5)
        assert np.isfinite(found).all()

    @pytest.mark.parametrize(("far_row", "stays"), [(3, True), (5, False)])
    def test_points_between_the_rows_count(self, far_row, stays):
        """Moved maps are not invertible where 9 < |x_1| < 11. All rows avoid that, and so does

        x_i + (x_(i-1) - x_(i-2)) / 2 with i = 0, 4, 8, ... unless row 3 is the one far out.
        """
        x = 0.1 * points(N)
        x[far_row] = 20.0, 0.0
        assert (after_a_step(x, 3.0, banded=True) == 0).all() == stays


class TestGuard:
    """Points that the map has to keep invertible, beside those of the batch."""

    def step(self, guard, start=(0.0, 0.0)):
        """The parameters after one step on N points, none of which is beyond the wall."""
        return after_a_step(0.5 * points(N), 2.0, start, guard, leans=True, wall=5.0)

    def test_their_violation_enters_the_gradient(self):
        """Mean over the guard of |s - 1|^2 x_1^2, with alpha; as in the batch's own."""
        guard = np.array([[1.0, 7.0], [-3.0, 0.0]])  # mean of x_1^2: 5
        x, found = 0.5 * points(N), self.step(guard)
        expected = leaning_step(x, np.mean(spread(x)[:, 0] ** 2) + 5.0)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert not np.allclose(found, self.step(NOWHERE))

    def test_a_step_that_makes_one_invalid_is_not_taken(self):
        assert (self.step([[6.0, 0.0], [0.0, 0.0]]) == 0).all()
        assert (self.step([[4.0, 0.0], [0.0, 0.0]]) != 0).all()

    def test_one_that_is_invalid_already_does_not_stop_it(self):
        start = (0.5, 0.5)
        assert (self.step([[6.0, 0.0], [0.0, 0.0]], start) != np.array(start)).all()

    def test_counts(self):
        guard = np.array([[6.0, 0.0], [7.0, 1.0], [1.0, 0.0]])
        model = PointModel(Translation, Fenced(1, leans=True, wall=5.0), TARGET, guard=guard)
        violation, invalid = jax.jit(model.guarded)(np.array([0.0, 1.0]))
        assert float(violation) == pytest.approx((36 + 49 + 1) / 3)
        assert int(invalid) == 2


class TestMonotone:
    """A fixed batch at a small penalty, whose transport the metric does not see."""

    def values(self, monotone):
        """The batch's objective after every step, by `costs`."""
        config = NaturalConfig(
            alpha=0.05, max_iter=10, step=4.0, largest_kl=1e6, monotone=monotone, memory=0.0
        )
        x = points(250) + 3.0
        model = PointModel(Translation, Glide(1), TARGET)

        @jax.jit
        def take(state):
            means = costs(Translation(state.flat), Glide(1), TARGET, x)
            objective = jnp.mean(means.transport + 0.05 * means.nll)
            return objective, natural_step(model, config, 0.05, state, x)

        state, found = start_state(np.array([0.5, -0.5])), []
        for _ in range(config.max_iter):
            objective, state = take(state)
            found.append(float(objective))
        return np.array(found)

    def test_never_raises_the_objective(self):
        found = self.values(True)
        assert (np.diff(found) <= 0).all()
        assert found[-1] < found[0]

    def test_without_it_the_same_steps_do(self):
        assert (np.diff(self.values(False)) > 0).any()


class TestGaussianProblem:
    """N(mean, cov) to N(0, I), alpha = 100, from a wrong base with a quadratic to learn."""

    mean, cov, alpha = np.array([1.0, -0.5]), np.array([[2.0, 0.5], [0.5, 0.8]]), 100.0

    def excess_objective(self):
        """J - J*_alpha of a potential by Gauss-Hermite quadrature, 40 nodes a coordinate."""
        z, w = np.polynomial.hermite_e.hermegauss(40)
        grid = np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2)
        x = self.mean + grid @ np.linalg.cholesky(self.cov).T
        w = np.outer(w, w).ravel() / w.sum() ** 2
        exact = gaussian(self.mean, self.cov, self.alpha)
        at_nodes = eqx.filter_jit(lambda potential: costs(potential, Conforming(1), TARGET, x))

        def of(potential):
            found = jax.device_get(at_nodes(potential))
            kl = w @ found.nll - exact.entropy
            return float(w @ found.transport + self.alpha * kl) - exact.objective

        return of

    def test_reaches_the_exact_minimum(self):
        base = GaussianBase.solve(self.mean + 0.2, 0.8 * self.cov, self.alpha)
        network = jax.jit(lambda key: ResNetPotential.create(2, 2, 0, key, output_scale=0.0))(
            jax.random.key(0)
        )
        network = eqx.tree_at(lambda p: p.A, network, 0.2 * jnp.eye(3))
        density = GaussianMixture([1.0], self.mean[None], self.cov[None])
        config = NaturalConfig(alpha=self.alpha, max_iter=120, batch_size=500, largest_kl=0.1)
        descent = descend(base + network, Conforming(1), config, density.log_prob)
        excess_objective, rng = self.excess_objective(), np.random.default_rng(1)
        start = excess_objective(descent.potential)
        for _ in range(config.max_iter):
            descent.step(rng.multivariate_normal(self.mean, self.cov, 500))
        end = excess_objective(descent.potential)
        assert start > 3
        assert -1e-9 < end < 1e-4


class TestConfig:
    @pytest.mark.parametrize("name", ["alpha", "step", "largest_kl", "damping"])
    def test_refuses_numbers_that_are_not_positive(self, name):
        with pytest.raises(ValueError, match=rf"^{name}: expected a finite number > 0; got 0"):
            NaturalConfig(**{name: 0})

    @pytest.mark.parametrize("name", ["max_iter", "batch_size"])
    def test_refuses_counts_below_one(self, name):
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer >= 1; got 0"):
            NaturalConfig(**{name: 0})

    @pytest.mark.parametrize(("memory", "bound"), [(1.0, r"in \[0, 1\)"), (-0.1, ">= 0")])
    def test_refuses_a_memory_outside_zero_to_one(self, memory, bound):
        with pytest.raises(ValueError, match=rf"^memory: expected a .*number {bound}; got "):
            NaturalConfig(memory=memory)
        assert NaturalConfig(memory=0.0).memory == 0


@pytest.mark.parametrize(("width", "fits"), [(86, True), (87, False)])
def test_too_many_parameters_are_rejected(width, fits):
    """m^2 + 6 m + 13 at depth 1 in two dimensions: 7,925 and 8,104."""
    shapes = eqx.filter_eval_shape(ResNetPotential.create, 2, width, 1, jax.random.key(0))
    network = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    assert (sum(leaf.size for leaf in jax.tree.leaves(network)) <= MOST_PARAMETERS) == fits
    if fits:
        assert descend(network).state.flat.size == width**2 + 6 * width + 13
    else:
        with pytest.raises(ValueError, match=r"^potential: natural gradients take at most 8000"):
            descend(network)


def test_only_trainable_parameters_move():
    base = GaussianBase.solve(np.ones(2), np.eye(2), 3.0)
    descent = descend(base + Translation(jnp.zeros(2)), Glide(1))
    assert descent.state.flat.shape == (2,)
    descent.step(points(250))
    before, after = base, descent.potential.terms[0]
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.linalg.norm(descent.state.flat) > 0


@functools.cache
def conditional():
    create = functools.partial(ConditionalResNet.create, 2, 2, 2, 0, output_scale=0.01)
    return jax.jit(create)(jax.random.key(0))


class TestRows:
    """Weights and conditions beside the points."""

    def test_integer_weights_are_repeated_rows(self):
        """One step: Fisher information, gradient and value; at most 250 rows, so one chunk."""
        x, counts = points(40), np.random.default_rng(1).integers(0, 4, 40)
        config = NaturalConfig(alpha=2.0, max_iter=10, monotone=True)
        descent = NaturalDescent(Translation(jnp.ones(2)), Glide(1), TARGET, config)
        start, states = descent.state, []
        for rows in (
            Rows(x, counts / counts.mean()),
            Rows(x).take(np.repeat(np.arange(40), counts)),
            Rows(x),
        ):
            descent.state = start
            descent.step(rows)
            states.append(jax.device_get(descent.state))
        found, expected, plain = states
        np.testing.assert_allclose(found.fisher, expected.fisher, rtol=1e-12)
        np.testing.assert_allclose(found.flat, expected.flat, rtol=1e-12)
        assert np.abs(found.flat - plain.flat).max() > 1e-4

    def test_the_control_variate_of_weighted_points_has_the_least_variance(self):
        """sum w^2 (1 - c e)^2 is least at c = sum w^2 e / sum w^2 e^2."""
        x, w = points(40), np.random.default_rng(2).uniform(0.1, 2, 40)
        potential = Translation(0.3 * jnp.ones(2))
        known = StandardNormal(2).log_prob
        descent = NaturalDescent(potential, Glide(1), TARGET, CONFIG, known)
        descent.step(Rows(x, w))
        pushed = Glide(1).push(potential, x)
        e = np.exp(-np.asarray(nll(TARGET, pushed) + known(x)))
        c = descent.state.moments[0] / descent.state.moments[1]
        best = optimize.minimize_scalar(lambda c: ((w * (1 - c * e)) ** 2).sum()).x
        assert c == pytest.approx(best, rel=1e-6)

    def test_every_point_is_costed_under_its_own_condition(self):
        """With an output and a slope in the condition that are not small."""
        x, c = points(6), points(6, seed=2)
        potential = eqx.tree_at(
            lambda p: (p.network.w, p.G), conditional(), (0.1 * np.ones(2), 0.1 * np.ones((3, 2)))
        )
        model = PointModel(lambda flat: potential, Conforming(1), TARGET)
        nll, transport = jax.jit(model)(np.zeros(0), Rows(x, condition=c))
        one = jax.jit(lambda x, c: costs(potential.given(c), Conforming(1), TARGET, x[None]))
        for i in range(6):
            found = one(x[i], c[i])
            np.testing.assert_allclose(nll[i], found.nll[0], rtol=1e-12)
            np.testing.assert_allclose(transport[i], found.transport[0], rtol=1e-12)
        assert np.ptp(transport) > 1e-3

    @pytest.mark.slow
    def test_steps_under_conditions_find_a_shift_linear_in_them(self):
        """x = c + noise: the bilinear term, silent at the start, has to learn T(x) = x - c."""
        x, c = points(200), points(200, seed=2)
        rows = Rows(x + c, condition=c)
        config = NaturalConfig(alpha=30.0, max_iter=40, step=1.0, largest_kl=1.0, monotone=True)
        descent = NaturalDescent(conditional(), Conforming(1), TARGET, config)
        for _ in range(15):
            descent.step(rows)
        np.testing.assert_allclose(descent.potential.G[:2], np.eye(2), atol=0.25)
