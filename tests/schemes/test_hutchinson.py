"""RK4 with an estimated trace: unbiased, and nothing but the log-determinant is estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials import ResNetPotential
from otflow.schemes import RK4
from otflow.schemes.hutchinson import HutchinsonRK4
from otflow.targets import StandardNormal
from otflow.training import TrainingConfig, train

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), float)


def potential():
    return ResNetPotential.create(4, 6, 1, jax.random.key(0))


def scheme(n_probes=1):
    return HutchinsonRK4(key=jax.random.key(0), n_steps=3, n_probes=n_probes)


def test_only_the_log_determinant_differs(float64):
    x = jnp.asarray(np.asarray(X), float)
    found, exact = (s.push(potential(), x) for s in (scheme(), RK4(3)))
    for name in ("points", "transport", "hjb"):
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-12)
    assert np.abs(found.log_det - exact.log_det).max() > 1e-3
    np.testing.assert_array_equal(
        scheme().pull(potential(), x).points, RK4(3).pull(potential(), x).points
    )
    path = scheme().trajectories(potential(), x)
    np.testing.assert_array_equal(path, RK4(3).trajectories(potential(), x))


def test_unbiased_and_the_variance_falls_with_probes():
    """4,000 draws of six points: the means within 4.5 standard errors (error rate 4e-5)."""
    draw = jax.jit(
        jax.vmap(lambda k, s: s.folded(k).push(potential(), X).log_det, (0, None)),
    )
    exact = RK4(3).push(potential(), X).log_det
    one, eight = (np.asarray(draw(jnp.arange(4000), scheme(n))) for n in (1, 8))
    for found in (one, eight):
        error = found.std(axis=0) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - exact) < 4.5 * error + 1e-6).all()
    np.testing.assert_allclose(one.var(axis=0) / eight.var(axis=0), 8, rtol=0.25)


def test_training_reports_the_deviation_and_validates_exactly():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((200, 4)) * [1, 2, 1, 1], float)
    config = TrainingConfig(max_iter=50, batch_size=64, n_probes=2)
    found = train(potential(), RK4(2), StandardNormal(4), x, x, config, show_progress=False)
    assert isinstance(found.scheme, RK4)
    assert min(found.history["trace_deviation"]) > 1e-4
    assert found.history["objective"][-1] < found.history["objective"][0]
    exact = train(
        potential(),
        RK4(2),
        StandardNormal(4),
        x,
        x,
        TrainingConfig(max_iter=1),
        show_progress=False,
    )
    assert set(exact.history["trace_deviation"]) == {0.0}
    assert exact.history["val_nll"][0] == pytest.approx(found.history["val_nll"][0], rel=1e-6)


def test_bad_probes():
    with pytest.raises(ValueError, match="n_probes: expected an integer >= 1; got 0"):
        scheme(0)
