"""Runs of natural-gradient steps: best weights, every way to end, and the control variate."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from otflow.data.rows import Rows
from otflow.flow.objective import kl_terms
from otflow.targets import StandardNormal
from otflow.training.natural import NaturalConfig
from otflow.training.polish import polish
from tests.fakes import Translation
from tests.training.glide import Glide

pytestmark = pytest.mark.usefixtures("float64")

ALPHA, MEAN = 3.0, np.array([2.0, -1.0])


def data(n=250, mean=MEAN, seed=0):
    noise = np.random.default_rng(seed).standard_normal((n, 2))
    return noise - noise.mean(axis=0) + mean


def run(x_val, draw=lambda i: data(), log_density=None, **config):
    config = {"alpha": ALPHA, "max_iter": 60, "largest_kl": 1.0} | config
    return polish(
        Translation(jnp.zeros(2)),
        Glide(1),
        StandardNormal(2),
        draw,
        x_val,
        NaturalConfig(**config),
        log_density,
        show_progress=False,
    )


def log_normal(x, mean=MEAN):
    return -0.5 * jnp.sum((x - mean) ** 2, axis=1) - math.log(2 * math.pi)


def interrupt(iteration):
    raise KeyboardInterrupt


def test_finds_the_closed_form_minimum():
    """min |s|^2/2 + alpha |mean + s|^2/2 is at s = -alpha mean / (1 + alpha), where KL > 0."""
    result = run(data(), log_density=log_normal)
    assert result.status == "max_iter"
    np.testing.assert_allclose(result.potential.shift, -ALPHA * MEAN / (1 + ALPHA), atol=1e-2)
    objective = result.history["objective"]
    assert objective[-1] < objective[0]
    assert result.best_iteration > 0


def test_history_has_one_entry_a_validation():
    result = run(data(), max_iter=25)
    history = result.history
    assert history["iteration"] == [0, 10, 20, 25]
    assert {len(column) for column in history.values()} == {4}
    transport, nll = (np.array(history[f"val_{name}"]) for name in ("transport", "nll"))
    np.testing.assert_allclose(history["objective"], transport + ALPHA * nll, rtol=1e-12)
    assert transport[0] == 0
    assert transport[-1] > 0.5
    assert (np.diff(history["seconds"]) >= 0).all()
    assert result.scheme == Glide(1)


def test_draws_the_batch_of_every_step_once():
    drawn = []

    def draw(i):
        drawn.append(i)
        return data(seed=i)

    run(data(), draw, max_iter=12)
    assert drawn == list(range(12))


def test_the_best_weights_are_returned_not_the_last():
    """Validation rows half way: improves first, overshoots then."""
    x_val = data(mean=0.4 * MEAN)
    result = run(x_val, step=0.2, max_iter=200)
    objective = result.history["objective"]
    best = int(np.argmin(objective))
    assert 0 < best < len(objective) - 1
    assert result.best_iteration == result.history["iteration"][best]
    shift = np.asarray(result.potential.shift)
    nll = 0.5 * np.mean(np.sum((x_val + shift) ** 2, axis=1)) + math.log(2 * math.pi)
    assert 0.5 * shift @ shift + ALPHA * nll == pytest.approx(objective[best], rel=1e-12)


class TestEarlyStopping:
    """Validation rows at home at shift 0, batches that pull away from it."""

    x_val = data(mean=0.0)

    def test_on_data_after_five_validations_without_improvement(self):
        result = run(self.x_val, max_iter=500)
        assert result.status == "early_stopping"
        assert result.history["iteration"] == [0, 10, 20, 30, 40, 50]
        assert result.best_iteration == 0
        assert np.array_equal(result.potential.shift, [0.0, 0.0])

    def test_never_where_the_density_is_known(self):
        result = run(self.x_val, log_density=log_normal, max_iter=80)
        assert result.status == "max_iter"
        assert result.history["iteration"][-1] == 80


class TestControlVariate:
    """The first validation at shift 0, log ratios set through the given density."""

    def first(self, n_far):
        """The objective where n_far of 2,000 log ratios are 1.5 and the others 0.2."""
        x = data(2000, mean=0.0)
        u = np.where(np.arange(2000) < n_far, 1.5, 0.2)

        def density(rows):
            assert rows.shape == (2000, 2)
            return log_normal(rows, 0.0) + u

        result = run(x, interrupt, density)
        assert result.status == "interrupted"
        return result.history["objective"][0], u

    @pytest.mark.parametrize("n_far", [0, 1, 300])
    def test_is_in_the_objective(self, n_far):
        found, u = self.first(n_far)
        e = np.exp(-u)
        c = -np.cov(u, e)[0, 1] / e.var(ddof=1) if n_far else 1.0
        assert found == pytest.approx(ALPHA * float(np.mean(u + c * (e - 1))), rel=1e-10)

    def test_goes_to_the_whole_as_the_flow_improves(self):
        """Two means 2.2 apart at alpha 100: far at first, not once the shift is found."""
        x = data(2000)
        result = run(
            x, lambda i: data(seed=i + 1), lambda x: log_normal(x), alpha=100.0, max_iter=40
        )
        history = result.history
        known, image = np.asarray(log_normal(x)), x + np.asarray(result.potential.shift)
        objective = np.array(history["objective"])
        shift = np.asarray(result.potential.shift)
        u = known - np.asarray(log_normal(image, 0.0))
        best = objective[history["iteration"].index(result.best_iteration)]
        expected = 0.5 * shift @ shift + 100 * float(np.mean(kl_terms(u)))
        assert best == pytest.approx(expected, rel=1e-3)
        assert objective[0] > 50 * best
        assert result.best_iteration > 0


def test_an_interrupt_keeps_the_best_weights():
    def draw(i):
        return data() if i < 14 else interrupt(i)

    result = run(data(), draw)
    assert result.status == "interrupted"
    assert result.history["iteration"] == [0, 10]
    assert result.best_iteration == 10
    assert np.linalg.norm(result.potential.shift) > 0.1


def test_is_silent_without_a_terminal(capsys):
    config = NaturalConfig(max_iter=1)
    start = Translation(jnp.zeros(2))
    polish(start, Glide(1), StandardNormal(2), lambda i: data(), data(), config)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_the_validation_is_weighted():
    """Weights that leave only the first half of the rows: their costs at the start."""
    x, half = data(), data()[:125]
    rows = Rows(x, np.repeat([2.0, 0.0], 125))
    history = run(rows, max_iter=1).history
    expected = np.mean(0.5 * np.sum(half**2, axis=1)) + math.log(2 * math.pi)
    assert history["val_nll"][0] == pytest.approx(expected, rel=1e-12)
    assert history["objective"][0] == pytest.approx(ALPHA * expected, rel=1e-12)


class NowhereInvertible(Glide):
    """Steps are never safe: what they would reach has no likelihood."""

    def push(self, potential, x):
        pushed = super().push(potential, x)
        moved = jnp.any(potential.shift != 0)
        return dataclasses.replace(pushed, log_det=jnp.where(moved, jnp.nan, pushed.log_det))


def test_a_run_without_a_step_says_so():
    """All tries of all steps are refused: the status, the history, and the weights of the start."""
    natural = NaturalConfig(alpha=ALPHA, max_iter=10, monotone=True)
    draw, start = lambda i: data(), Translation(jnp.zeros(2))
    result = polish(
        start, NowhereInvertible(1), StandardNormal(2), draw, data(), natural, show_progress=False
    )
    assert result.status == "no_step"
    assert result.history["failed"] == [0, 10]
    np.testing.assert_array_equal(result.potential.shift, start.shift)
