"""Ensembles against their members alone, and both phases against loops written by hand."""

import dataclasses
import functools
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import otflow.training.ensemble as ensemble_module
from otflow.data.rows import spread
from otflow.flow.objective import Costs, costs
from otflow.flow.wide import Wide
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.reference import gaussian
from otflow.schemes import Conforming
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training import TrainingConfig
from otflow.training.ensemble import (
    EnsembleConfig,
    Fresh,
    Given,
    stack,
    train_ensemble,
    unstack,
)
from otflow.training.loop import learning_rate_schedule
from otflow.training.natural import NaturalConfig, PointModel, natural_step, start_state
from otflow.training.step import split_trainable
from tests.fakes import Translation
from tests.training.glide import Glide

pytestmark = pytest.mark.usefixtures("float64")

ALPHA = np.array([2.0, 20.0])
SCHEME, TARGET = Conforming(1), StandardNormal(1)
MEAN, STD = 0.4, 0.7


@functools.cache
def density():
    return GaussianMixture(np.ones(1), np.full((1, 1), MEAN), np.full((1, 1, 1), STD**2))


@functools.cache
def keys(k=2):
    return jax.random.split(jax.random.key(11), k)


@functools.cache
def potentials(k=2):
    """Networks of 15 parameters in one dimension."""
    create = eqx.filter_jit(
        lambda seeds: [ResNetPotential.create(1, 2, 0, s, output_scale=0.05) for s in seeds]
    )
    return create(list(jax.random.split(jax.random.key(1), k)))


@functools.cache
def misplaced():
    """Networks on bases for data with another mean."""
    base = GaussianBase.solve(np.array([MEAN + 0.5]), np.array([[STD**2]]), 5.0)
    return [base + network for network in potentials()]


def translations():
    """Two members of one parameter: quick to compile."""
    return [Translation(np.array([shift])) for shift in (0.3, -0.1)]


def rows(k=2, n=60):
    return MEAN + STD * np.random.default_rng(4).standard_normal((k, n, 1))


def flat(potential):
    """As `ravel_pytree` has it."""
    leaves = jax.tree.leaves(split_trainable(potential)[0])
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def members_of(stacked):
    """`unstack`, with NumPy arrays."""
    return unstack(jax.tree.map(np.asarray, stacked))


def train(source, config, members=None, alpha=ALPHA, **options):
    """Flat parameters of the trained networks, or of members that glide."""
    scheme, start = (SCHEME, potentials()) if members is None else (Glide(1), members)
    trained = train_ensemble(stack(start), scheme, TARGET, alpha, source, config, **options)
    return [flat(p) for p in members_of(trained)]


class TestStack:
    def test_unstack_is_the_inverse(self):
        members = potentials(3)
        stacked = stack(members)
        for leaf, first in zip(*map(jax.tree.leaves, (stacked, members[0])), strict=True):
            assert leaf.shape == (3, *first.shape)
        for before, after in zip(members, unstack(stacked), strict=True):
            assert jax.tree.structure(before) == jax.tree.structure(after)
            for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True):
                np.testing.assert_array_equal(a, b)

    def test_one_member(self):
        (back,) = unstack(stack(potentials(1)))
        np.testing.assert_array_equal(flat(back), flat(potentials(1)[0]))


BOTH = EnsembleConfig(first_order=4, first_order_rows=32, natural=3, natural_rows=40)
MONOTONE = EnsembleConfig(first_order=0, natural=3, natural_rows=60, monotone=True)
FIRST = {"first_order": 50, "first_order_rows": 48, "learning_rate": 0.02}
PHASES = EnsembleConfig(**FIRST, natural=50, natural_rows=1000, damping=1e-3)


@functools.cache
def together():
    """Two members of different penalty, start and key, through both phases."""
    source = Fresh(density(), keys())
    return train(source, BOTH, translations(), log_density=density().log_prob)


@functools.cache
def whole_data():
    """Two members on data sets of their own, used whole in monotone natural steps."""
    return train(Given(rows(), keys()), MONOTONE, translations())


@pytest.mark.slow
class TestMembers:
    """A member together with another one of other penalty, start, key and data, and alone."""

    def check(self, i, found, source, config, **options):
        one = slice(i, i + 1)
        start = translations()[one]
        (alone,) = train(source, config, start, ALPHA[one], **options)
        np.testing.assert_allclose(found[i], alone, rtol=1e-9, atol=1e-11)
        assert np.linalg.norm(alone - flat(start[0])) > 1e-3

    def test_fresh_points(self):
        source = Fresh(density(), keys()[:1])
        self.check(0, together(), source, BOTH, log_density=density().log_prob)

    def test_given_points(self):
        self.check(1, whole_data(), Given(rows()[1:], keys()[1:]), MONOTONE)


def batch(i, step, n, data=None):
    """The points of a step of member i, as the sources say."""
    key = jax.random.fold_in(keys()[i], step)
    if data is None:
        return density().sample(key, n)
    if n >= len(data):
        return data
    return data[jax.random.randint(key, (n,), 0, len(data))]


class Phases(NamedTuple):
    """Flat parameters of all members on the way, and the members at the end."""

    first: np.ndarray  # after the first-order steps
    five: np.ndarray  # after five natural ones
    end: list


@functools.cache
def both_phases():
    """One run on fresh points of networks on bases, in blocks of five steps."""
    states, spread_over = [], ensemble_module._spread

    def recorded(function, k):
        call = spread_over(function, k)

        def recording(*args):
            states.append(call(*args))
            return states[-1]

        return recording

    source, options = Fresh(density(), keys()), {"guard": rows()[0]}
    options["log_density"] = density().log_prob
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble_module, "_spread", recorded)
        patch.setattr(ensemble_module, "_BLOCK", 5)
        start = stack(misplaced())
        trained = train_ensemble(start, SCHEME, TARGET, ALPHA, source, PHASES, **options)
    assert len(states) == 22  # two starts and ten blocks a phase
    return Phases(np.asarray(states[10][0]), np.asarray(states[12].flat), members_of(trained))


class TestFirstOrder:
    @pytest.mark.parametrize("kind", [pytest.param("fresh", marks=pytest.mark.slow), "given"])
    def test_is_adam_on_the_objective(self, kind):
        """Steps of at most 48 points: value and gradient straight from `costs`."""
        i, alpha, n_steps = 1, ALPHA[1], FIRST["first_order"]
        if kind == "fresh":
            found, data, start = both_phases().first, None, misplaced()[i]
        else:
            found = train(Given(rows(), keys()), EnsembleConfig(**FIRST, natural=0))
            data, start = jnp.asarray(rows()[i]), potentials()[i]
        schedule = learning_rate_schedule(TrainingConfig(max_iter=n_steps, learning_rate=0.02))
        params, static = split_trainable(start)
        optimiser = optax.chain(optax.clip_by_global_norm(10 * alpha), optax.adam(schedule))

        def objective(params, x):
            potential = eqx.combine(params, static)
            means = costs(potential, SCHEME.for_training(), TARGET, x)
            safety = jnp.mean(SCHEME.violation(potential, spread(x)))
            return jnp.mean(means.transport + alpha * means.nll) + alpha * safety

        @jax.jit
        def take(step, params, state):
            x = batch(i, step, 48, data)
            updates, state = optimiser.update(jax.grad(objective)(params, x), state, params)
            return optax.apply_updates(params, updates), state

        state = jax.jit(optimiser.init)(params)
        for step in range(n_steps):
            params, state = take(step, params, state)
        expected = flat(params)
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)
        assert np.linalg.norm(expected - flat(start)) > 0.01


class TestNatural:
    def by_hand(self, i, model, config, flat, first, n_steps, data=None):
        """Parameters after natural steps numbered from `first`, one call each."""

        @jax.jit
        def take(number, state):
            x = batch(i, number, config.batch_size, data)
            if data is None:  # where the density is known they reach farther than its draws
                key = jax.random.fold_in(keys()[i], number)
                x = Wide.of(density()).draw(key, config.batch_size)
            return natural_step(model, config, ALPHA[i], state, x)

        state = start_state(np.asarray(flat))
        for k in range(n_steps):
            state = take(first + k, state)
        assert np.linalg.norm(state.flat - flat) > 1e-4
        return state.flat

    @pytest.mark.slow
    def test_is_natural_steps(self):
        """After the first-order steps: batches are numbered on, no draw comes twice."""
        run, i = both_phases(), 1
        params, static = split_trainable(misplaced()[i])
        unravel = ravel_pytree(params)[1]
        model = PointModel(
            lambda flat: eqx.combine(unravel(flat), static),
            SCHEME,
            TARGET,
            density().log_prob,
            rows()[0],
        )
        config = NaturalConfig(max_iter=50, batch_size=1000, damping=1e-3, step=0.5)
        expected = self.by_hand(i, model, config, run.first[i], FIRST["first_order"], 5)
        np.testing.assert_allclose(run.five[i], expected, rtol=1e-8, atol=1e-11)

    def test_full_steps_where_they_are_monotone(self):
        i, model = 1, PointModel(Translation, Glide(1), TARGET)
        config = NaturalConfig(max_iter=3, batch_size=60, damping=5e-5, monotone=True, step=1.0)
        start = flat(translations()[i])
        expected = self.by_hand(i, model, config, start, 0, 3, jnp.asarray(rows()[i]))
        np.testing.assert_allclose(whole_data()[i], expected, rtol=1e-8, atol=1e-11)

    def test_reaches_the_exact_minimum(self):
        """N(0.4, 0.7^2), two penalties, from a base that is wrong in the mean; by quadrature."""
        z, w = np.polynomial.hermite_e.hermegauss(60)
        x, w = (MEAN + STD * z)[:, None], w / w.sum()
        at_nodes = eqx.filter_jit(lambda potential: costs(potential, SCHEME, TARGET, x))
        for alpha, before, after in zip(ALPHA, misplaced(), both_phases().end, strict=True):
            exact = gaussian(np.array([MEAN]), np.array([[STD**2]]), alpha)
            gaps = []
            for potential in (before, after):
                found = jax.device_get(at_nodes(jax.tree.map(np.asarray, potential)))
                kl = w @ found.nll - exact.entropy
                gaps.append(float(w @ found.transport + alpha * kl) - exact.objective)
            assert gaps[0] > 0.03
            assert -1e-9 < gaps[1] < 2e-3


class Walled(StandardNormal):
    """A target whose log-density is NaN for points beyond 100."""

    def log_prob(self, y):
        return super().log_prob(y) + jnp.where(jnp.abs(y[:, 0]) > 100, jnp.nan, 0.0)


def test_a_member_that_meets_nan_keeps_its_parameters_and_the_others_train():
    data = rows() + np.array([0.0, 1e6])[:, None, None]
    config = EnsembleConfig(first_order=2, first_order_rows=60, natural=0)
    source = Given(data, keys())
    start = stack([Translation(np.zeros(1))] * 2)
    trained = unstack(train_ensemble(start, Glide(1), Walled(1), ALPHA, source, config))
    assert trained[1].shift == 0
    assert abs(trained[0].shift) > 1e-3


def test_on_step_hears_of_blocks(monkeypatch):
    """Steps that go nowhere, quick to compile."""

    def stay(model, config, alpha, state, x):
        return dataclasses.replace(state, iteration=state.iteration + 1)

    def flat_slope(scheme, target, alpha, beta, params, static, x):
        return Costs(0.0, 0.0, 0.0), jax.tree.map(jnp.zeros_like, params)

    monkeypatch.setattr(ensemble_module, "_BLOCK", 2)
    monkeypatch.setattr(ensemble_module, "natural_step", stay)
    monkeypatch.setattr(ensemble_module, "batch_gradient", flat_slope)
    config, heard = EnsembleConfig(first_order=5, first_order_rows=4, natural=2), []
    train(Fresh(density(), keys()), config, translations(), on_step=heard.append)
    assert heard == [2, 4, 5, 7]


def test_no_steps_change_nothing():
    config = EnsembleConfig(first_order=0, natural=0)
    for before, after in zip(potentials(), train(Fresh(density(), keys()), config), strict=True):
        np.testing.assert_array_equal(flat(before), after)


class TestConfig:
    @pytest.mark.parametrize("name", ["first_order", "natural"])
    def test_counts_from_zero(self, name):
        assert getattr(EnsembleConfig(**{name: 0}), name) == 0
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer >= 0; got -1"):
            EnsembleConfig(**{name: -1})

    @pytest.mark.parametrize("name", ["first_order_rows", "natural_rows"])
    def test_counts_from_one(self, name):
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer >= 1; got 0"):
            EnsembleConfig(**{name: 0})
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer >= 1; got float"):
            EnsembleConfig(**{name: 2.5})

    @pytest.mark.parametrize("name", ["learning_rate", "damping"])
    def test_positive_numbers(self, name):
        with pytest.raises(ValueError, match=rf"^{name}: expected a finite number > 0; got 0"):
            EnsembleConfig(**{name: 0.0})


DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_enable_x64", True)
import numpy as np
from tests.training.test_ensemble import together
assert jax.local_device_count() == 2
np.save(sys.argv[1], together())
"""


@pytest.mark.slow
def test_two_devices_give_the_same_parameters(tmp_path):
    command = [sys.executable, "-c", DEVICES, str(tmp_path / "two.npy")]
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert found.returncode == 0, found.stderr
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), together(), rtol=1e-9, atol=1e-10)
