"""Ensembles against their members alone, and both phases against loops written by hand."""

import functools
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from otflow.objective import costs
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
from otflow.training.rows import spread
from otflow.training.step import split_trainable
from tests.fakes import Translation

pytestmark = pytest.mark.usefixtures("float64")

ALPHA = np.array([2.0, 20.0])
SCHEME, TARGET = Conforming(1), StandardNormal(1)
MEAN, STD = 0.4, 0.7


def density():
    return GaussianMixture(np.ones(1), np.full((1, 1), MEAN), np.full((1, 1, 1), STD**2))


def keys(k=2):
    return jax.random.split(jax.random.key(11), k)


def potentials(k=2):
    """Networks of 15 parameters in one dimension."""
    keys = jax.random.split(jax.random.key(1), k)
    return [ResNetPotential.create(1, 2, 0, key, output_scale=0.05) for key in keys]


def misplaced():
    """Networks on bases for data with another mean."""
    base = GaussianBase.solve(np.array([MEAN + 0.5]), np.array([[STD**2]]), 5.0)
    return [base + network for network in potentials()]


def translations():
    """Two members of one parameter: quick to compile."""
    return [Translation(jnp.array([shift])) for shift in (0.3, -0.1)]


def rows(k=2, n=60):
    return MEAN + STD * jax.random.normal(jax.random.key(4), (k, n, 1))


def flat(potential):
    return np.asarray(ravel_pytree(split_trainable(potential)[0])[0])


def train(source, config, members=None, alpha=ALPHA, **options):
    start = potentials() if members is None else members
    trained = train_ensemble(stack(start), SCHEME, TARGET, alpha, source, config, **options)
    return [flat(p) for p in unstack(trained)]


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


@functools.cache
def together():
    """Two members of different penalty, start and key, through both phases."""
    source = Fresh(density(), keys())
    return train(source, BOTH, translations(), log_density=density().log_prob)


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
        found = train(Given(rows(), keys()), MONOTONE, translations())
        self.check(1, found, Given(rows()[1:], keys()[1:]), MONOTONE)


def batch(i, step, n, data=None):
    """The points of a step of member i, as the sources say."""
    key = jax.random.fold_in(keys()[i], step)
    if data is None:
        return density().sample(key, n)
    if n >= len(data):
        return data
    return data[jax.random.randint(key, (n,), 0, len(data))]


class TestFirstOrder:
    @pytest.mark.parametrize("kind", ["fresh", "given"])
    def test_is_adam_on_the_objective(self, kind):
        """Six steps of at most 48 points: value and gradient straight from `costs`."""
        n_steps, data = 6, None if kind == "fresh" else rows()
        source = Fresh(density(), keys()) if data is None else Given(data, keys())
        config = EnsembleConfig(
            first_order=n_steps, first_order_rows=48, learning_rate=0.02, natural=0
        )
        found = train(source, config)
        schedule = learning_rate_schedule(TrainingConfig(max_iter=n_steps, learning_rate=0.02))
        i, alpha = 1, ALPHA[1]
        params, static = split_trainable(potentials()[i])
        optimiser = optax.chain(optax.clip_by_global_norm(10 * alpha), optax.adam(schedule))

        def objective(params, x):
            potential = eqx.combine(params, static)
            means = costs(potential, SCHEME.for_training(), TARGET, x)
            safety = jnp.mean(SCHEME.violation(potential, spread(x)))
            return jnp.mean(means.transport + alpha * means.nll) + alpha * safety

        state, slope = optimiser.init(params), jax.jit(jax.grad(objective))
        for step in range(n_steps):
            x = batch(i, step, 48, None if data is None else data[i])
            updates, state = optimiser.update(slope(params, x), state, params)
            params = optax.apply_updates(params, updates)
        expected = np.asarray(ravel_pytree(params)[0])
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)
        assert np.linalg.norm(expected - flat(potentials()[i])) > 0.01


class TestNatural:
    def test_is_natural_steps(self):
        """After two first-order steps: batches are numbered on, no draw comes twice."""
        first = EnsembleConfig(first_order=2, first_order_rows=16, natural=0)
        config = EnsembleConfig(
            first_order=2,
            first_order_rows=16,
            natural=4,
            natural_rows=50,
            damping=1e-3,
            monotone=True,
        )
        source, i = Fresh(density(), keys()), 1
        before = train(source, first)
        found = train(source, config, log_density=density().log_prob, guard=rows()[0])
        params, static = split_trainable(potentials()[i])
        unravel = ravel_pytree(params)[1]
        model = PointModel(
            lambda flat: eqx.combine(unravel(flat), static),
            SCHEME,
            TARGET,
            density().log_prob,
            rows()[0],
        )
        step = NaturalConfig(
            max_iter=4,
            batch_size=50,
            damping=1e-3,
            monotone=True,
            step=1.0,
        )
        state = start_state(jnp.asarray(before[i]))
        take = jax.jit(lambda *args: natural_step(model, step, ALPHA[i], *args))
        for k in range(4):
            x = batch(i, 2 + k, 50)
            far = np.abs(model(state.flat, x)[0]) > 1
            state = take(bool(far.mean() <= 1e-3), state, x)
        np.testing.assert_allclose(found[i], state.flat, rtol=1e-8, atol=1e-11)
        assert np.linalg.norm(found[i] - before[i]) > 1e-4

    def test_reaches_the_exact_minimum(self):
        """N(0.4, 0.7^2), two penalties, from a base that is wrong in the mean; by quadrature."""
        config = EnsembleConfig(first_order=50, first_order_rows=128, natural=50, natural_rows=4000)
        members = misplaced()
        trained = train_ensemble(
            stack(members),
            SCHEME,
            TARGET,
            ALPHA,
            Fresh(density(), keys()),
            config,
            log_density=density().log_prob,
        )
        z, w = np.polynomial.hermite_e.hermegauss(60)
        x, w = jnp.asarray(MEAN + STD * z)[:, None], w / w.sum()
        for alpha, before, after in zip(ALPHA, members, unstack(trained), strict=True):
            exact = gaussian(np.array([MEAN]), np.array([[STD**2]]), alpha)
            gaps = []
            for potential in (before, after):
                found = costs(potential, SCHEME, TARGET, x)
                kl = w @ found.nll - exact.entropy
                gaps.append(float(w @ found.transport + alpha * kl) - exact.objective)
            assert gaps[0] > 0.03
            assert -1e-9 < gaps[1] < 2e-3


class Walled(StandardNormal):
    """A target whose log-density is NaN for points beyond 100."""

    def log_prob(self, y):
        return super().log_prob(y) + jnp.where(jnp.abs(y[:, 0]) > 100, jnp.nan, 0.0)


def test_a_member_that_meets_nan_keeps_its_parameters_and_the_others_train():
    data = rows().at[1].add(1e6)
    config = EnsembleConfig(first_order=2, first_order_rows=60, natural=0)
    source = Given(data, keys())
    start = stack([Translation(jnp.zeros(1))] * 2)
    trained = unstack(train_ensemble(start, SCHEME, Walled(1), ALPHA, source, config))
    assert trained[1].shift == 0
    assert abs(trained[0].shift) > 1e-3


def test_on_step_hears_of_blocks(monkeypatch):
    monkeypatch.setattr("otflow.training.ensemble._BLOCK", 2)
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


def test_two_devices_give_the_same_parameters(tmp_path):
    command = [sys.executable, "-c", DEVICES, str(tmp_path / "two.npy")]
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert found.returncode == 0, found.stderr
    np.testing.assert_allclose(np.load(tmp_path / "two.npy"), together(), rtol=1e-9, atol=1e-10)
