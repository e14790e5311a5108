"""Fits by function that are stopped: what they had reached is kept, and they go on bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.mixture  # noqa: F401  (loaded before its threads are limited)
from threadpoolctl import threadpool_limits

from otflow import fit_unnormalised, transport_between

SMALL = {"width": 2, "n_steps": 1, "max_iter": 50, "batch_size": 32, "verbose": False}
ROWS = np.random.default_rng(0).standard_normal((40, 2))
LIMIT = 300  # seconds of the killed process


def grow(**options):
    return move(growth=2.0, mass_y=2.0, **options)


def move(**options):
    mixed = {"max_components": 1, "plan_iter": 10}
    with threadpool_limits(1):
        return transport_between(ROWS, ROWS + 1, **SMALL | mixed | options)


def quartic(x):
    return -0.25 * jnp.sum(x**4)


def sample(**options):
    return fit_unnormalised(quartic, 2, **SMALL | options)


def polished(**options):
    return sample(natural_iter=20, **options)


FITS = {"growth": grow, "density": sample, "polished": polished}
ENDS = dict.fromkeys(FITS, (50, "first-order")) | {"polished": (20, "natural")}


def bits(fitted) -> list[bytes]:
    """Of all arrays."""
    trained = fitted.law if hasattr(fitted, "law") else fitted.model.flow
    arrays = jax.tree.leaves(eqx.filter(trained, eqx.is_array))
    assert arrays
    return [np.asarray(array).tobytes() for array in arrays]


def at(iteration, phase, stop):
    """A callback that stops at a row."""

    def told(row):
        if (row["iteration"], row["phase"]) == (iteration, phase):
            stop()

    return told


def interrupt():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def course(fitted):
    """The history without seconds."""
    history = fitted.history if hasattr(fitted, "history") else fitted.training["history"]
    return {k: np.asarray(v).tobytes() for k, v in history.items() if k != "seconds"}


@pytest.mark.parametrize("name", [pytest.param("growth", marks=pytest.mark.slow), "density"])
def test_an_interrupted_fit_is_kept_and_goes_on(name, tmp_path):
    fit, kept = FITS[name], {"checkpoint": tmp_path / "c", "checkpoint_every": 25}
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(**kept, on_validation=at(*ENDS[name], interrupt))
    with pytest.raises(FileExistsError, match="resume it"):
        fit(**kept)
    with pytest.raises(ValueError, match=r"what differs: learning_rate \(0.02 there, 0.1 now\)"):
        fit(**kept, resume=True, learning_rate=0.1)
    half, found = stopped.value.fitted, fit(**kept, resume=True)
    assert type(half) is type(found)
    assert bits(found) == bits(fit())
    points = half.transform(ROWS[:3]) if name == "growth" else half.sample(3)
    assert points.shape == (3, 2)


@pytest.mark.slow
def test_a_checkpoint_knows_its_log_density(tmp_path):
    kept = {"checkpoint": tmp_path / "c", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        fit_unnormalised(quartic, 2, **kept, on_validation=at(25, "first-order", interrupt))
    with pytest.raises(ValueError, match="what differs: log_density"):
        fit_unnormalised(lambda x: 1.001 * quartic(x), 2, resume=True, **kept)


@pytest.mark.slow  # test_checkpoint.py has the estimator behind it
def test_a_map_without_growth_is_kept_too(tmp_path):
    kept = {"checkpoint": tmp_path / "c", "checkpoint_every": 25}
    with pytest.raises(KeyboardInterrupt) as stopped:
        move(**kept, on_validation=at(50, "first-order", interrupt))
    assert stopped.value.fitted.transform(ROWS).shape == ROWS.shape
    found, expected = (made.transform(ROWS) for made in (move(**kept, resume=True), move()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_a_killed_fit_goes_on_bit_for_bit(name, tmp_path):
    """SIGKILL in the last block: the file has the state before it."""
    path = tmp_path / "c"
    watch = f"checkpoint={str(path)!r}, on_validation=s.at(*s.ENDS[{name!r}], s.kill)"
    code = (
        f"import tests.estimator.test_stopped as s; s.FITS[{name!r}](checkpoint_every=25, {watch})"
    )
    root = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=LIMIT, check=False)
    assert process.returncode == -signal.SIGKILL
    assert path.exists()
    found, expected = FITS[name](checkpoint=path, resume=True), FITS[name]()
    assert bits(found) == bits(expected)
    assert course(found) == course(expected)
