"""A phase like an earlier one of the process compiles nothing, by JAX's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials import ConvexStages, GaussianBase
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training import Rows, plan
from otflow.training.natural import NaturalConfig
from otflow.training.polish import polish
from tests.fakes import Translation
from tests.training.glide import Glide

EVENT = "/jax/core/compile/backend_compile_duration"
CONFIG = NaturalConfig(alpha=2.0, max_iter=2)
X = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)


def natural_steps(seed):
    """From a start, on rows and validation rows of its own."""
    rows, start = Rows(X + np.float32(seed)), Translation(jnp.full(2, 0.1 * seed))
    return polish(start, Glide(1), StandardNormal(2), lambda k: rows, rows, CONFIG, None, False)


def known_density(seed):
    """The same, of a density of its own that knows its logarithm."""
    density = GaussianMixture([1.0], [[0.1 * seed, 0.0]], [np.eye(2)])
    rows, start = Rows(X), Translation(jnp.full(2, 0.1 * seed))
    others = (lambda k: rows, rows, CONFIG, density.log_prob, False)
    return polish(start, Glide(1), StandardNormal(2), *others)


def plan_start(n_stages, seed):
    """From stages, rows and a target of its own."""
    base = GaussianBase.solve(np.zeros(2), np.eye(2), 30.0)
    start = ConvexStages.create(base, n_stages, 2, jax.random.key(seed))
    target = GaussianMixture([0.5, 0.5], [[-4.0, 0.1 * seed], [4.0, 0.0]], [0.25 * np.eye(2)] * 2)
    return plan.start_from_plan(start, Rows(X + np.float32(seed)), target, 2, seed)


@pytest.fixture
def compiled():
    """The programs compiled so far, or taken from a folder, as a list that grows."""
    found: list[float] = []

    def listen(event, seconds, **_):
        if event == EVENT:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    "phase",
    [
        natural_steps,
        known_density,
        pytest.param(lambda seed: plan_start(1, seed), id="plan_and_dual", marks=pytest.mark.slow),
        pytest.param(lambda seed: plan_start(2, seed), id="plan"),
    ],
)
def test_a_second_one_compiles_nothing(phase, compiled, monkeypatch):
    monkeypatch.setattr(plan, "_PLANS", 1)
    phase(0)
    assert compiled
    compiled.clear()
    phase(1)
    assert compiled == []
