"""Stand-ins that keep tests quick: a run that does not train, a potential with one parameter."""

import inspect

import jax.numpy as jnp

import otflow.estimator.estimator
import otflow.estimator.fitting
from otflow.potentials.base import AbstractPotential, GradientHessian, GradientLaplacian
from otflow.training import TrainingResult, train

SMALL = {
    "scheme": "rk4",
    "n_steps": 2,
    "width": 8,
    "depth": 1,
    "max_iter": 25,
    "batch_size": 64,
    "random_state": 0,
    "verbose": False,
}

_COLUMNS = ("iteration", "seconds", "learning_rate", "n_steps", "nll_error", "objective")
_COSTS = ("transport", "nll", "straightness")


def untrained(*args, **kwargs) -> TrainingResult:
    """In the place of `otflow.training.train`: the potential it was given, at once."""
    history = {name: [0.0] for name in _COLUMNS}
    history |= {f"{part}_{name}": [0.0] for part in ("train", "val") for name in _COSTS}
    given = train_arguments(*args, **kwargs)
    return TrainingResult(given["potential"], given["scheme"], history, "max_iter", 0)


def train_arguments(*args, **kwargs) -> dict:
    """What a call of `otflow.training.train` was given, by name."""
    return dict(inspect.signature(train).bind(*args, **kwargs).arguments)


def no_training(monkeypatch) -> None:
    """Estimators keep their starting potential."""
    monkeypatch.setattr(otflow.estimator.fitting, "train", untrained)


def no_plan(monkeypatch) -> None:
    """Nor do they start from a transport plan."""
    monkeypatch.setattr(
        otflow.estimator.fitting, "start_from_plan", lambda potential, *given: potential
    )


def forbid_training(monkeypatch) -> None:
    """A test that reaches training fails."""

    def reached(*args, **kwargs):
        raise AssertionError("training was reached")

    monkeypatch.setattr(otflow.estimator.fitting, "train", reached)


class Translation(AbstractPotential):
    """Phi = -shift'x: T(x) = x + shift, transport |shift|^2 / 2, log-determinant 0."""

    shift: jnp.ndarray

    @property
    def dim(self):
        return self.shift.shape[0]

    def value(self, x, t):
        return -x @ self.shift

    def gradient(self, x, t):
        row = jnp.append(-self.shift, 0.0).astype(x.dtype)
        return jnp.broadcast_to(row, (x.shape[0], self.dim + 1))

    def gradient_and_laplacian(self, x, t):
        return GradientLaplacian(self.gradient(x, t), jnp.zeros_like(x[:, 0]))

    def gradient_and_hessian(self, x, t):
        return GradientHessian(
            self.gradient(x, t), jnp.zeros((x.shape[0], self.dim, self.dim), x.dtype)
        )
