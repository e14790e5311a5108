"""The loop against a problem with a closed form, and every way a run can end."""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import otflow.training.loop as loop_module
from otflow.data.rows import Rows
from otflow.flow.wide import WideBatches
from otflow.potentials import GaussianBase, ResNetPotential
from otflow.schemes import RK4, Conforming
from otflow.targets import GaussianMixture, StandardNormal
from otflow.training import TrainingConfig, TrainingResult, train
from otflow.training.loop import learning_rate_schedule
from tests.fakes import Translation
from tests.training.glide import Glide

ALPHA, BETA = 3.0, 0.5
MEAN = np.array([2.0, -1.0])


def data(n=64, mean=MEAN, seed=0):
    noise = np.random.default_rng(seed).standard_normal((n, 2))
    return (noise - noise.mean(axis=0) + mean).astype(np.float32)


def run(x, x_val=None, shift=(0.0, 0.0), **config):
    config = {"alpha": ALPHA, "beta": BETA, "validate_every": 5, "max_iter": 20} | config
    start = Translation(jnp.asarray(shift, jnp.float32))
    return train(
        start, Glide(1), StandardNormal(2), x, x_val, TrainingConfig(**config), show_progress=False
    )


def test_finds_the_closed_form_minimum():
    """min |s|^2/2 (1 + beta) + alpha |mean + s|^2/2 is at s = -alpha mean / (1 + alpha + beta).

    300 Adam steps with a decaying rate: 1e-3.
    """
    result = run(data(), max_iter=300, validate_every=100, learning_rate=0.1)
    np.testing.assert_allclose(
        result.potential.shift, -ALPHA * MEAN / (1 + ALPHA + BETA), atol=1e-3
    )
    assert result.status == "max_iter"


def test_a_known_density_takes_the_noise_out():
    """300 steps of 32 fresh points: a tenth of the error that they leave without it."""
    alpha, start = 100.0, GaussianMixture([1.0], [MEAN], [np.eye(2)])
    config = TrainingConfig(alpha=alpha, max_iter=300, batch_size=32, learning_rate=0.1)
    held = start.sample(jax.random.key(1), 500)

    def error(density):
        x = WideBatches(start, 32, jax.random.key(0))
        given = Translation(jnp.zeros(2)), Glide(1), StandardNormal(2), x, held
        found = train(*given, config, show_progress=False, density=density)
        return np.abs(found.potential.shift + alpha * MEAN / (1 + alpha)).max()

    assert error(start) < 0.2 * error(None)


def test_history_has_one_entry_a_validation():
    config = TrainingConfig(max_iter=12, learning_rate=0.02)
    result = run(data(), data(seed=1), max_iter=12, learning_rate=0.02, batch_size=16)
    history = result.history
    assert history["iteration"] == [0, 5, 10, 12]
    assert {len(column) for column in history.values()} == {4}
    assert (np.diff(history["seconds"]) >= 0).all()
    schedule = learning_rate_schedule(config)
    np.testing.assert_allclose(
        history["learning_rate"], [float(schedule(i)) for i in history["iteration"]], rtol=1e-6
    )
    for name in ("transport", "nll", "hjb"):
        assert math.isnan(history[f"train_{name}"][0])
        assert np.isfinite(history[f"train_{name}"][1:]).all()
    parts = (np.array(history[f"val_{name}"]) for name in ("transport", "nll", "hjb"))
    transport, nll, hjb = parts
    np.testing.assert_allclose(
        history["objective"], transport + ALPHA * nll + BETA * hjb, rtol=1e-6
    )


def test_the_same_seed_gives_the_same_run():
    first, again, other = (run(data(), batch_size=8, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.potential.shift, again.potential.shift)
    assert first.history["objective"] == again.history["objective"]
    assert not np.array_equal(first.potential.shift, other.potential.shift)


def test_early_stopping_returns_the_best_weights():
    """The validation rows are at home at shift 0, the training rows pull away from it."""
    result = run(data(), data(mean=0.0), max_iter=500, patience=3)
    assert result.status == "early_stopping"
    assert result.history["iteration"] == [0, 5, 10, 15]
    assert (np.diff(result.history["objective"]) > 0).all()
    assert result.best_iteration == 0
    assert np.array_equal(result.potential.shift, [0.0, 0.0])


def test_patience_counts_from_the_last_improvement():
    """Validation rows half way: improves first, overshoots then; the turning point is kept."""
    result = run(data(), data(mean=0.3 * MEAN), max_iter=500, patience=2, learning_rate=0.05)
    objective = result.history["objective"]
    best = int(np.argmin(objective))
    assert result.status == "early_stopping"
    assert 0 < best == len(objective) - 3
    assert result.best_iteration == result.history["iteration"][best]
    shift = np.asarray(result.potential.shift, np.float64)
    transport, nll = result.history["val_transport"][best], result.history["val_nll"][best]
    assert transport == pytest.approx(0.5 * shift @ shift, rel=1e-5)
    moved = np.asarray(data(mean=0.3 * MEAN), np.float64) + shift
    expected = 0.5 * (moved**2).sum(axis=1).mean() + math.log(2 * math.pi)
    assert nll == pytest.approx(expected, rel=1e-5)


def test_without_validation_rows_it_never_stops_early():
    """Steps far too long: the objective is above its start at every validation."""
    result = run(data(mean=0.0), learning_rate=5.0, patience=1, max_iter=15)
    assert min(result.history["objective"][1:]) > result.history["objective"][0]
    assert result.status == "max_iter"
    assert result.history["iteration"] == [0, 5, 10, 15]
    assert result.best_iteration == 0


def test_an_interrupt_keeps_the_best_weights(monkeypatch):
    make_block = loop_module.make_block

    def interrupted_in_the_third_call(*args):
        block, calls = make_block(*args), []

        def wrapped(*given):
            calls.append(None)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return block(*given)

        return wrapped

    monkeypatch.setattr(loop_module, "make_block", interrupted_in_the_third_call)
    result = run(data(), max_iter=500)
    assert result.status == "interrupted"
    assert result.history["iteration"] == [0, 5, 10]
    assert result.best_iteration == 10
    assert np.linalg.norm(result.potential.shift) > 0


def test_weights_that_overflow_end_the_run():
    result = run(data(), learning_rate=1e30, max_iter=500)
    assert result.status == "non_finite"
    assert result.best_iteration == 0
    assert np.array_equal(result.potential.shift, [0.0, 0.0])
    assert not math.isfinite(result.history["objective"][-1])


def test_a_bad_training_batch_ends_the_run_though_validation_is_fine():
    x = data()
    x[3, 0] = np.nan
    result = run(x, data(seed=1), max_iter=500)
    assert result.status == "non_finite"
    assert np.isfinite(result.history["objective"]).all()
    assert result.history["iteration"] == [0, 5]


def test_a_start_that_is_not_finite_takes_no_step(monkeypatch):
    def untouched(*args):
        def block(*given):
            raise AssertionError("a step was taken")

        return block

    monkeypatch.setattr(loop_module, "make_block", untouched)
    result = run(data(mean=1e30))
    assert result.status == "non_finite"
    assert result.history["iteration"] == [0]


@pytest.mark.parametrize("max_iter", [1, 10, 2000])
def test_learning_rate_schedule(max_iter):
    """Up from 10 % to the peak, then down to 1 %."""
    schedule = learning_rate_schedule(TrainingConfig(max_iter=max_iter, learning_rate=0.2))
    rates = np.asarray(jax.jit(jax.vmap(schedule))(np.arange(max_iter + 1)))
    assert rates[0] == pytest.approx(0.02, rel=1e-5)
    assert rates.max() == pytest.approx(0.2, rel=1e-5)
    top = int(rates.argmax())
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    if max_iter > 1:
        assert rates[-1] == pytest.approx(0.002, rel=1e-5)


def test_is_silent_without_a_terminal(capsys):
    start = Translation(jnp.zeros(2))
    config = TrainingConfig(max_iter=1)
    train(start, Glide(1), StandardNormal(2), data(), None, config, show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


class Biased(Glide):
    """Log-det too large by |shift|^2 / n_steps, as an optimiser exploits it."""

    def push(self, potential, x):
        pushed = super().push(potential, x)
        bias = jnp.sum(potential.shift**2) / self.n_steps
        return eqx.tree_at(lambda p: p.log_det, pushed, pushed.log_det + bias)


class Recorded(NamedTuple):
    """A run, and what every block was given and gave: (n_steps, shift before, after)."""

    result: TrainingResult
    calls: list


@functools.cache
def biased_run(tolerance):
    make_block, calls = loop_module.make_block, []

    def recording(scheme, *args):
        block = make_block(scheme, *args)

        def wrapped(params, *given):
            found = block(params, *given)
            calls.append((scheme.n_steps, np.array(params.shift), np.array(found[0].shift)))
            return found

        return wrapped

    options = {"max_iter": 60, "validate_every": 5, "learning_rate": 0.1}
    config = TrainingConfig(alpha=ALPHA, nll_tolerance=tolerance, **options)
    start, x = Translation(jnp.zeros(2)), data()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "make_block", recording)
        result = train(start, Biased(1), StandardNormal(2), x, None, config, False)
    return Recorded(result, calls)


class TestIntegrationError:
    """Step doubling on Biased finds |shift|^2 / (2 n_steps), which grows from 0 in training."""

    tolerance = 0.2

    def test_doubles_the_steps_and_goes_back_to_the_last_weights_within_tolerance(self):
        result, calls = biased_run(self.tolerance)
        history = result.history
        steps, errors = np.array(history["n_steps"]), np.array(history["nll_error"])
        assert history["iteration"] == list(range(0, 61, 5))
        refined = np.flatnonzero(errors[1:] > self.tolerance)
        assert refined.size >= 2
        good = np.zeros(2)
        for i, (n_steps, before, after) in enumerate(calls):
            assert n_steps == steps[i + 1]
            np.testing.assert_array_equal(before, good)
            error = float(after @ after) / (2 * n_steps)
            assert errors[i + 1] == pytest.approx(error, rel=1e-3, abs=1e-5)
            if error <= self.tolerance:
                good = after
                expected = n_steps
            else:  # doubled until these weights are within tolerance
                expected = n_steps
                while after @ after / (2 * expected) > self.tolerance:
                    expected *= 2
            if i + 1 < len(calls):
                assert calls[i + 1][0] == expected
        assert result.scheme == Biased(int(expected))
        assert result.scheme.n_steps > 1

    def test_the_best_weights_were_judged_with_the_steps_they_need(self):
        """Every objective before the last refinement is forgotten: it was too low."""
        result, calls = biased_run(self.tolerance)
        history = result.history
        final = result.scheme.n_steps
        last = [i for i, n in enumerate(history["n_steps"]) if n == final]
        within = [i for i in last if history["nll_error"][i] <= self.tolerance]
        best = min(within, key=lambda i: history["objective"][i])
        assert min(history["objective"]) < history["objective"][best]
        assert result.best_iteration == history["iteration"][best]
        np.testing.assert_array_equal(result.potential.shift, calls[best - 1][2])

    def test_none_within_a_wide_tolerance(self):
        result, _ = biased_run(100.0)
        assert set(result.history["n_steps"]) == {1}
        assert max(result.history["nll_error"]) > 0.2
        assert result.scheme == Biased(1)


@pytest.mark.slow
def test_rk4_is_refined_before_the_first_step_where_the_start_needs_it():
    """Data 7 times narrower than its target: one RK4 step misses the log-det."""
    x = 0.15 * data(mean=0.0)
    cov = np.cov(x.astype(np.float64), rowvar=False)
    start = GaussianBase.solve(np.zeros(2), cov, ALPHA) + Translation(jnp.zeros(2))
    config = TrainingConfig(alpha=ALPHA, max_iter=5, validate_every=5, nll_tolerance=0.01)
    result = train(start, RK4(1), StandardNormal(2), x, None, config, False)
    history = result.history
    assert history["n_steps"] == [1, result.scheme.n_steps]
    assert result.scheme.n_steps > 2
    assert history["nll_error"][0] > 0.1
    assert 0 < history["nll_error"][1] <= 0.01


def test_the_steps_stop_doubling_at_128():
    """No number of steps has so small an error where the shift is not 0."""
    start = Translation(jnp.ones(2))
    config = TrainingConfig(alpha=ALPHA, max_iter=2, validate_every=1, nll_tolerance=1e-30)
    result = train(start, Biased(32), StandardNormal(2), data(), None, config, False)
    assert result.history["n_steps"] == [32, 128, 128]
    assert result.status == "max_iter"


def test_a_start_that_is_not_invertible_is_mended():
    """Phi = 1.2^2 |x|^2 / 2, one conforming step: x -> -0.44 x, infinite nll at every row."""
    create = jax.jit(lambda key: ResNetPotential.create(2, 1, 0, key, output_scale=0.0))
    network = create(jax.random.key(0))
    start = eqx.tree_at(lambda p: p.A, network, 1.2 * jnp.eye(3))
    config = TrainingConfig(alpha=ALPHA, max_iter=100, learning_rate=0.02, patience=10)
    x = data(mean=0.0)
    result = train(start, Conforming(1), StandardNormal(2), x, x, config, False)
    objective = result.history["objective"]
    assert objective[0] == np.inf
    assert np.isfinite(objective[-1])
    assert result.status == "max_iter"
    assert result.best_iteration > 0
    assert set(result.history["nll_error"]) == {0.0}
    assert set(result.history["n_steps"]) == {1}
    assert eqx.filter_jit(Conforming(1).push)(result.potential, x).valid.all()


def test_a_lost_validation_row_does_not_hide_the_best_weights():
    """The map is invertible where the image is near: one row of 65 is beyond at every step."""

    class Bounded(Glide):
        def refined(self):
            return None  # exact, as far as the loop knows

        def push(self, potential, x):
            pushed = super().push(potential, x)
            log_det = jnp.where(jnp.abs(pushed.points[:, 0]) < 50, pushed.log_det, -jnp.inf)
            return eqx.tree_at(lambda p: p.log_det, pushed, log_det)

    x = data()
    x_val = np.concatenate([x, np.array([[100.0, 0.0]], np.float32)])
    config = TrainingConfig(alpha=ALPHA, max_iter=100, learning_rate=0.1)
    result = train(
        Translation(jnp.zeros(2)), Bounded(1), StandardNormal(2), x, x_val, config, False
    )
    assert result.best_iteration > 0
    np.testing.assert_allclose(result.history["val_invalid"], 1 / 65, rtol=1e-6)
    objective = np.array(result.history["objective"]) - ALPHA * 100 / 65
    means = np.array(result.history["val_transport"]) + ALPHA * np.array(result.history["val_nll"])
    np.testing.assert_allclose(objective, means, rtol=1e-4)


def test_weights_count_in_training_and_validation():
    """The second half, of weight 0, is elsewhere: the minimum is that of the first half."""
    x = np.concatenate([data(), data(mean=-5 * MEAN)])
    rows = Rows(x, np.repeat([2.0, 0.0], 64).astype(np.float32))
    result = run(rows, max_iter=300, validate_every=100, learning_rate=0.1)
    expected = -ALPHA * MEAN / (1 + ALPHA + BETA)
    np.testing.assert_allclose(result.potential.shift, expected, atol=1e-3)
    start = 0.5 * np.mean(np.sum(data() ** 2, axis=1)) + math.log(2 * math.pi)
    assert result.history["val_nll"][0] == pytest.approx(start, rel=1e-6)
