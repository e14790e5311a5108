"""RK4 with an estimated trace: unbiased, and nothing but the log-determinant is estimated."""

import equinox as eqx
import jax
import numpy as np
import pytest

from otflow.schemes import RK4
from otflow.schemes.hutchinson import HutchinsonRK4
from otflow.targets import StandardNormal
from otflow.training import TrainingConfig, Watch, train
from tests.helpers import random_resnet

X = np.random.default_rng(0).standard_normal((6, 4))


def potential():
    """Without residual layers, whose programs would compile for longer."""
    return random_resnet(4, 6, 0)


def scheme(n_probes=1):
    return HutchinsonRK4(key=jax.random.key(0), n_steps=3, n_probes=n_probes)


def test_only_the_log_determinant_differs(float64):
    p, push = potential(), eqx.filter_jit(lambda s, p: s.push(p, X))
    found, exact = (push(s, p) for s in (scheme(), RK4(3)))
    for name in ("points", "transport", "hjb"):
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-12)
    assert np.abs(found.log_det - exact.log_det).max() > 1e-3
    pull = eqx.filter_jit(lambda s, p: (s.pull(p, X).points, s.trajectories(p, X)))
    for found, exact in zip(*(pull(s, p) for s in (scheme(), RK4(3))), strict=True):
        np.testing.assert_array_equal(found, exact)


def test_unbiased_and_the_variance_falls_with_probes():
    """4,000 draws of six points: the means within 4.5 standard errors (error rate 8e-5)."""
    x, p, numbers = X.astype(np.float32), potential(), np.arange(4000)

    def draws(s):
        return jax.vmap(lambda number: s.folded(number).push(p, x).log_det)(numbers)

    found = jax.jit(lambda p: (*map(draws, (scheme(1), scheme(4))), RK4(3).push(p, x).log_det))(p)
    one, four, exact = map(np.asarray, found)
    for found in (one, four):
        error = found.std(axis=0) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - exact) < 4.5 * error + 1e-6).all()
    np.testing.assert_allclose(one.var(axis=0) / four.var(axis=0), 4, rtol=0.25)


@pytest.mark.slow
def test_training_reports_the_deviation_and_validates_exactly():
    """A run with the exact trace is stopped at its first validation, which is of the start."""
    x = np.random.default_rng(1).standard_normal((200, 4)) * [1, 2, 1, 1]
    arguments = potential(), RK4(2), StandardNormal(4), x.astype(np.float32), x.astype(np.float32)
    config = TrainingConfig(max_iter=50, batch_size=64, n_probes=2)
    found = train(*arguments, config, show_progress=False)
    assert isinstance(found.scheme, RK4)
    assert min(found.history["trace_deviation"]) > 1e-4
    assert found.history["objective"][-1] < found.history["objective"][0]
    rows = []

    def stop(row):
        rows.append(row)
        raise StopIteration

    with pytest.raises(StopIteration):
        train(*arguments, TrainingConfig(), show_progress=False, watch=Watch(on_validation=stop))
    assert rows[0]["trace_deviation"] == 0
    assert rows[0]["val_nll"] == pytest.approx(found.history["val_nll"][0], rel=1e-6)


def test_bad_probes():
    with pytest.raises(ValueError, match="n_probes: expected an integer >= 1; got 0"):
        scheme(0)
