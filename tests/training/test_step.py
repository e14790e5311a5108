"""Chunked means and gradients against plain ones; steps that must not be taken."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from otflow.data.rows import Rows, spread
from otflow.flow.objective import costs
from otflow.potentials import (
    ConditionalGaussian,
    ConditionalResNet,
    GaussianBase,
    ResNetPotential,
)
from otflow.schemes import RK4, Conforming
from otflow.schemes.base import Push
from otflow.targets import StandardNormal
from otflow.training import block as block_module
from otflow.training import step as step_module
from otflow.training.block import make_block
from otflow.training.step import (
    batch_gradient,
    in_chunks,
    mean_nll_error,
    split_trainable,
    valid_costs,
)
from tests.fakes import Translation
from tests.training.glide import Glide

SCHEME = Glide(1)
CHUNK = 256
ALPHA, BETA = 3.0, 0.5


def points(n, dim=2, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, dim))
    return x.astype(jax.dtypes.canonicalize_dtype(float))


def base(dim=2):
    return GaussianBase.solve(np.ones(dim), 2 * np.eye(dim), ALPHA)


def array_leaves(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]


def assert_same(a, b):
    """Bit for bit."""
    for left, right in zip(array_leaves(a), array_leaves(b), strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize("n", [1, 2, CHUNK, CHUNK + 1, 2 * CHUNK + 1, 1000])
def test_chunks_hold_every_row_once(n):
    x = points(n)
    chunks, weights = jax.jit(in_chunks, static_argnums=1)(x, CHUNK)
    rows = np.asarray(chunks.x)
    size = rows.shape[1]
    assert size <= CHUNK
    assert rows.shape == (weights.shape[0], size, 2)
    assert np.array_equal(rows.reshape(-1, 2)[:n], x)
    flat = np.asarray(weights).ravel()
    assert (flat[:n] == np.float32(1 / n)).all()
    assert (flat[n:] == 0).all()


ONE_CHUNK = [pytest.param(n, marks=pytest.mark.slow) for n in (6, 7)]  # quick: 1


@pytest.mark.parametrize("n", [1, *ONE_CHUNK, 8, 20])
def test_chunked_mean_is_the_mean(n, monkeypatch, float64):
    """Sums in another order, float64: 1e-13. The shift makes every row's nll different."""
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: 7)
    potential, x = Translation(np.array([0.3, -1.0])), points(n)

    @jax.jit
    def both(x):
        args = (potential, SCHEME, StandardNormal(2), x)
        return valid_costs(*args), costs(*args)

    found, expected = jax.device_get(both(x))
    for name in ("transport", "nll", "hjb"):
        plain = np.mean(getattr(expected, name))
        np.testing.assert_allclose(getattr(found.means(), name), plain, rtol=1e-13)


def test_a_step_of_plain_descent_moves_by_the_unchunked_gradient(monkeypatch, float64):
    """20 rows in chunks of 7 with one row of padding; float64, sums in another order: 1e-11."""
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: 7)
    target, x = StandardNormal(2), points(30)
    network = jax.jit(lambda key: ResNetPotential.create(2, 4, 1, key))(jax.random.key(1))
    params, static = split_trainable(network)
    rows = np.arange(5, 25)[None]

    def objective(params):
        found = costs(eqx.combine(params, static), _OneStep(), target, x[rows[0]])
        return jnp.mean(found.objective(ALPHA, BETA))

    value, gradient = jax.jit(jax.value_and_grad(objective))(params)
    optimiser = optax.sgd(1.0)
    block = make_block(_OneStep(), target, optimiser, ALPHA, BETA)
    moved, _, log = block(params, static, optimiser.init(params), Rows(x).take(rows))
    assert bool(log.finite[0])
    assert np.isclose(log.costs.objective(ALPHA, BETA)[0], value, rtol=1e-12)
    gradient = jax.device_get(gradient)
    steps = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, moved)
    for got, expected in zip(jax.tree.leaves(steps), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0.1


def test_only_trainable_arrays_are_parameters():
    potential = base() + Translation(jnp.ones(2))
    params, static = split_trainable(potential)
    assert [leaf.shape for leaf in array_leaves(params)] == [(2,)]
    assert len(array_leaves(static)) == len(array_leaves(base()))
    assert_same(eqx.combine(params, static), potential)


def test_a_step_that_is_not_finite_changes_nothing_and_is_flagged():
    """Weights and Adam's state (moments, count) equal those of a run without the bad batch."""
    x = points(6)
    x[3, 1] = np.nan
    params, static = split_trainable(Translation(jnp.ones(2)))
    optimiser = optax.adam(0.1)
    block = make_block(SCHEME, StandardNormal(2), optimiser, ALPHA, BETA)
    with_bad = np.array([[0, 1], [2, 3], [4, 5]])
    state = optimiser.init(params)
    got = block(params, static, state, Rows(x).take(with_bad))
    clean = block(params, static, state, Rows(x).take(with_bad[[0, 2]]))
    assert np.array_equal(got[2].finite, [True, False, True])
    assert np.array_equal(clean[2].finite, [True, True])
    assert_same(got[:2], clean[:2])
    assert not np.array_equal(got[0].shift, params.shift)


def test_a_gradient_that_is_not_finite_is_flagged_too():
    """The objective stays finite, only the gradient overflows: the step is refused."""
    params, static = split_trainable(Translation(jnp.ones(2)))
    x = points(4)
    optimiser = optax.sgd(1.0)
    block = make_block(_Kinked(), StandardNormal(2), optimiser, ALPHA, BETA)
    moved, _, log = block(params, static, optimiser.init(params), Rows(x).take(np.arange(4)[None]))
    assert np.isfinite(log.costs.objective(ALPHA, BETA)).all()
    assert not bool(log.finite[0])
    assert_same(moved, params)


class _OneStep(RK4):
    """A stand-in quick to compile: one evaluation of the potential feeds all four results."""

    def push(self, potential, x):
        found = potential.gradient_and_laplacian(x, 0.3)
        v, rate = -found.gradient[:, :-1], found.gradient[:, -1]
        half = 0.5 * jnp.sum(v * v, axis=1)
        return Push(x + v, -found.laplacian, half, jnp.zeros_like(half), half >= 0, jnp.abs(rate))


class _Kinked(Glide):
    """Adds sqrt(0 * shift) to the transport: value 0, slope infinite times zero, NaN."""

    def push(self, potential, x):
        pushed = super().push(potential, x)
        kink = jnp.sqrt(0.0 * potential.shift[0])
        return eqx.tree_at(lambda p: p.transport, pushed, pushed.transport + kink)


def test_the_log_holds_the_costs_before_each_update():
    x = points(4)
    params, static = split_trainable(Translation(jnp.array([2.0, 0.0])))
    optimiser = optax.sgd(0.1)
    block = make_block(SCHEME, StandardNormal(2), optimiser, ALPHA, 0.0)
    batches = Rows(x).take(np.tile(np.arange(4), (3, 1)))
    _, _, log = block(params, static, optimiser.init(params), batches)
    assert log.costs.transport.shape == (3,)
    assert float(log.costs.transport[0]) == pytest.approx(2.0, rel=1e-6)  # |shift|^2 / 2
    assert (np.diff(log.costs.objective(ALPHA)) < 0).all()


class _Lost(Glide):
    """Infinite nll at points with x_1 > 10."""

    def push(self, potential, x):
        pushed = super().push(potential, x)
        log_det = jnp.where(x[:, 0] > 10, -jnp.inf, pushed.log_det)
        return eqx.tree_at(lambda p: p.log_det, pushed, log_det)


def test_padding_that_is_infinite_counts_for_nothing(monkeypatch):
    """20 rows in chunks of 7: row 0 is also the padding, which is not lost a second time."""
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: 7)
    x = points(20)
    x[0, 0] = 11.0

    @jax.jit
    def both(x):
        potential = Translation(jnp.ones(2))
        return in_chunks(x, 7), valid_costs(potential, _Lost(1), StandardNormal(2), x)

    (rows, weights), found = jax.device_get(both(x))
    assert float(rows.x[-1, -1, 0]) == 11.0
    assert float(weights[-1, -1]) == 0
    assert float(found.invalid) == pytest.approx(1 / 20)
    np.testing.assert_allclose(found.means().transport, 1.0, rtol=1e-6)


def test_an_invalid_row_counts_a_hundred_nats(float64):
    """Means over the other rows, weighted; sums in another order: 1e-12. None left: infinite."""
    x, target, weight = points(20), StandardNormal(2), np.linspace(0.5, 1.5, 20)
    lost, potential = x.copy(), Translation(np.array([0.3, -1.0]))
    lost[3, 0] = 11.0
    measured = jax.jit(lambda x: valid_costs(potential, _Lost(1), target, Rows(x, weight)))
    found = jax.device_get(measured(lost))
    rest = np.delete(np.arange(20), 3)
    each = jax.jit(lambda x: costs(potential, SCHEME, target, x))(x)
    for name in ("transport", "nll", "hjb"):
        expected = np.average(np.asarray(getattr(each, name))[rest], weights=weight[rest])
        assert float(getattr(found.means(), name)) == pytest.approx(expected, rel=1e-12)
    more = found.objective(ALPHA) - float(found.means().objective(ALPHA))
    assert more == pytest.approx(ALPHA * 100 * float(weight[3]) / 20, rel=1e-12)
    nothing = jax.device_get(measured(x + 100))
    assert nothing.objective(ALPHA) == nothing.means().nll == np.inf


def test_mean_nll_error_is_that_of_step_doubling(float64):
    x, target, potential = points(5), StandardNormal(2), base()

    @jax.jit
    def measured(x):
        coarse, fine = (costs(potential, RK4(n), target, x).nll for n in (1, 2))
        return coarse, fine, mean_nll_error(potential, RK4(1), RK4(2), target, x)

    coarse, fine, found = map(np.asarray, measured(x))
    np.testing.assert_allclose(found, np.abs(coarse - fine).mean(), rtol=1e-12)
    assert found > 1e-5


class _Leaning(Glide):
    """Violation |shift - 1|^2 x_1^2."""

    def violation(self, potential, x):
        return jnp.sum((potential.shift - 1) ** 2) * x[:, 0] ** 2


@pytest.mark.parametrize("size", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 50))])
def test_the_violation_between_the_rows_enters_with_weight_alpha(size, monkeypatch, float64):
    """20 rows and 5 points between them: chunks, with padding or not, change nothing.

    Chunks of 3 pad both; 7 (slow) the rows alone, 50 (slow) neither.
    """
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: size)
    x, shift = points(20), np.array([0.3, -0.2])
    params, static = split_trainable(Translation(shift))
    optimiser = optax.sgd(1.0)
    block = make_block(_Leaning(1), StandardNormal(2), optimiser, ALPHA, 0.0)
    moved, _, log = block(params, static, optimiser.init(params), Rows(x).take(np.arange(20)[None]))
    lean = np.mean(spread(x)[:, 0] ** 2)
    gradient = shift + ALPHA * (np.mean(x, axis=0) + shift) + ALPHA * 2 * (shift - 1) * lean
    np.testing.assert_allclose(moved.shift, shift - gradient, rtol=1e-10)
    assert lean > 0.1
    # the log holds the costs alone
    np.testing.assert_allclose(log.costs.transport[0], 0.5 * shift @ shift, rtol=1e-12)


COUNTS = np.array([2, 0, 1, 3, 1, 0, 2, 1, 1, 4])


@functools.cache
def conditional(dim=2, k=3):
    """A base and a network under a condition, with every array away from 0, float64."""
    rng = np.random.default_rng(5)
    create = functools.partial(ConditionalResNet.create, dim, k, 4, 0, output_scale=0.1)
    network = jax.jit(create)(jax.random.key(1))
    G = 0.1 * rng.standard_normal((dim + 1, k))
    network = eqx.tree_at(lambda p: p.G, network, G)
    W = rng.standard_normal((dim, k))
    return ConditionalGaussian.solve(np.ones(dim), W, 2 * np.eye(dim), ALPHA) + network


@pytest.mark.parametrize("with_condition", [pytest.param(False, marks=pytest.mark.slow), True])
def test_integer_weights_are_repeated_rows(with_condition, monkeypatch, float64):
    """The objective and its gradient, in chunks of 7; float64, sums in another order: 1e-12.

    K = 1 and a network of small slope: the violation, which looks at neighbours, is 0.
    """
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: 7)
    x, c = points(10), points(10, 3, seed=1)
    potential = conditional() if with_condition else base() + conditional().terms[1].network
    c = c if with_condition else None
    weighted = Rows(x, COUNTS / COUNTS.mean(), c)
    repeated = Rows(x, condition=c).take(np.repeat(np.arange(10), COUNTS))
    assert repeated.n == COUNTS.sum() == 15
    params, static = split_trainable(potential)
    scheme = Conforming(1).for_training()

    @jax.jit
    def measured(rows):
        return batch_gradient(scheme, StandardNormal(2), ALPHA, BETA, params, static, rows)

    unweighted = Rows(x, np.ones(10), c)
    (found, gradient), (expected, slope), (plain, _) = (
        jax.device_get(measured(rows)) for rows in (weighted, repeated, unweighted)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(slope))
    assert scale > 0.1
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12 * scale)
    assert abs(float(plain.nll - found.nll)) > 1e-3


def test_every_row_is_costed_under_its_own_condition(monkeypatch, float64):
    """Against one row at a time under one condition (k,); chunks of 7 with padding."""
    monkeypatch.setattr(step_module, "chunk_size", lambda potential: 7)
    potential, x, c = conditional(), points(10), points(10, 3, seed=1)
    scheme, target = Conforming(1), StandardNormal(2)
    measured = jax.jit(lambda rows: valid_costs(potential, scheme, target, rows))
    found = jax.device_get(measured(Rows(x, condition=c))).means()
    one = jax.jit(lambda x, c: costs(potential.given(c), scheme, target, x[None]))
    rows = [one(a, b) for a, b in zip(x, c, strict=True)]
    for name in ("transport", "nll", "straightness"):
        expected = np.mean([float(getattr(row, name)[0]) for row in rows])
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-12)


def test_points_around_are_judged_under_the_condition_of_their_row(float64):
    """Violation |shift(c) - 1|^2: the mean over rows 0, 4, 8."""
    network = conditional().terms[1]
    params, static = split_trainable(network)
    c = points(10, 3, seed=1)
    rows = Rows(points(10), condition=c)

    @jax.jit
    def gradients(params):
        args = (StandardNormal(2), ALPHA, 0.0, params, static, rows)
        return [batch_gradient(scheme, *args)[1] for scheme in (_LeaningBias(1), _OneStep(1))]

    leaning, plain = (np.asarray(found.G[0]) for found in gradients(params))
    b = np.asarray(network.network.b)[0] + c[::4] @ np.asarray(network.G)[0]
    slope = ALPHA * 2 * np.mean((b - 1)[:, None] * c[::4], 0)
    np.testing.assert_allclose(leaning - plain, slope, rtol=1e-9)


class _LeaningBias(_OneStep):
    """Violation (b_1 - 1)^2 of every point's own b."""

    def violation(self, potential, x):
        return (potential.b[:, 0] - 1) ** 2


def test_programs_are_kept_for_the_process():
    """Equal schemes, optimisers and weights share one; another weight, or type of it, does not."""
    optimiser = optax.sgd(0.1)
    kept = block_module._kept_program
    first = kept(Conforming(2), optimiser, 3.0, 0.5)
    assert kept(Conforming(2), optimiser, 3.0, 0.5) is first
    for other in (
        (Conforming(3), optimiser, 3.0, 0.5),
        (Conforming(2), optax.sgd(0.1), 3.0, 0.5),
        (Conforming(2), optimiser, 3, 0.5),
        (Conforming(2), optimiser, 3.0, 0.0),
    ):
        assert kept(*other) is not first
