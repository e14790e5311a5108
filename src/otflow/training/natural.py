"""Natural-gradient descent: second order where first-order training stalls.

The metric is the Fisher information of the model density, E[grad log p (grad log p)'], averaged
over recent batches: the curvature of the KL term, which dominates at large alpha. A step solves a
dense system, so it is for potentials of up to a few thousand parameters.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget
from otflow.training.config import check_count, check_number
from otflow.training.step import split_trainable, spread

CHUNK = 250  # points whose parameter gradients are held at once
MOST_PARAMETERS = 8000  # the Fisher matrix of more would take over 256 MB in float32
_TAIL = 1.0  # |log ratio| up to which the control variate is exact


@dataclasses.dataclass(frozen=True)
class NaturalConfig:
    """Hyperparameters of a natural-gradient run.

    Attributes:
        alpha: weight of the nll, > 0.
        max_iter: steps.
        batch_size: points a step, a multiple of 250 is used.
        step: fraction of the full natural step at the start, decaying linearly to 0.
        largest_kl: a step is shortened so that the model density moves by at most this, nats.
        memory: weight of the past in the running average of the Fisher information.
        damping: multiple of the mean diagonal added to it.
    """

    alpha: float = 30.0
    max_iter: int = 200
    batch_size: int = 2000
    step: float = 0.5
    largest_kl: float = 2e-3
    memory: float = 0.9
    damping: float = 2e-4

    def __post_init__(self) -> None:
        for name in ("alpha", "step", "largest_kl", "damping"):
            check_number(name, getattr(self, name), positive=True)
        for name in ("max_iter", "batch_size"):
            check_count(name, getattr(self, name))


class _Batch(eqx.Module):
    """Fisher information, gradient of the objective, and the number of invalid points."""

    fisher: Float[Array, "p p"]
    gradient: Float[Array, " p"]
    invalid: Int[Array, ""]


def excess(log_ratio: Float[Array, " n"]) -> Float[Array, " n"]:
    """u - 1 + exp(-u) for u = log(rho0 / p): an estimator of KL(rho0 || p) without noise at u = 0.

    E_rho0[p / rho0] = 1, so exp(-u) - 1 is a control variate for u. Below u = -1 a straight line
    continues it, so that no batch explodes.
    """
    u = jnp.maximum(log_ratio, -_TAIL)
    e = jnp.exp(-u)
    return u - 1 + e + (1 - e) * (log_ratio - u)


class NaturalDescent:
    """Natural-gradient steps on a potential's trainable parameters.

    Args:
        potential: where to start.
        scheme: the time discretisation.
        target: rho1.
        config: hyperparameters.
        log_density: log rho0, where it is known. While `control_variate` is set, the objective
            carries `excess` in the place of the nll: its gradient noise vanishes at the optimum.

    Raises:
        ValueError: more than MOST_PARAMETERS parameters.
    """

    def __init__(
        self,
        potential: AbstractPotential,
        scheme: AbstractScheme,
        target: AbstractTarget,
        config: NaturalConfig,
        log_density: Callable[[Array], Array] | None = None,
    ):
        params, static = split_trainable(potential)
        self.flat, unravel = ravel_pytree(params)
        if self.flat.size > MOST_PARAMETERS:
            raise ValueError(
                f"potential: natural gradients take at most {MOST_PARAMETERS} parameters; "
                f"got {self.flat.size}. Use a smaller width or depth 0."
            )
        self.config = config
        self.iteration = 0
        self._fisher: Array | None = None
        self._join: Callable[[Array], AbstractPotential] = lambda flat: eqx.combine(
            unravel(flat), static
        )
        self.control_variate = False
        model = _PointModel(self._join, scheme, target, log_density)
        self._measure = {
            use: jax.jit(functools.partial(_measure, model, kl, config.alpha))
            for use, kl in ((False, lambda u: u), (True, excess))
        }
        self._invalid = jax.jit(lambda flat, x: _count_invalid(model, flat, x))

    @property
    def potential(self) -> AbstractPotential:
        """The potential at the current parameters."""
        return self._join(self.flat)

    def step(self, x: Float[Array, "n d"]) -> None:
        """One step on a batch.

        A step that adds points of the batch, or between and around them, at which the map is not
        invertible, or that cannot be solved for, is shortened and more damped; after six tries the
        parameters stay.
        """
        batch = self._measure[self.control_variate](self.flat, x)
        r = min(self.config.memory, self.iteration / (self.iteration + 1))
        old = batch.fisher if self._fisher is None else self._fisher
        self._fisher = r * old + (1 - r) * batch.fisher
        warm_up = min(1.0, (self.iteration + 1) / 5)
        size = self.config.step * warm_up * (1 - self.iteration / self.config.max_iter)
        self.iteration += 1
        damping = self.config.damping
        for _ in range(6):
            direction, kl = _solve(self._fisher, batch.gradient / self.config.alpha, damping)
            shorten = min(1.0, float(self.config.largest_kl / max(float(kl), 1e-30)) ** 0.5)
            flat = self.flat - size * shorten * direction
            if np.isfinite(float(kl)) and self._invalid(flat, x) <= batch.invalid:
                self.flat = flat
                return
            size, damping = 0.5 * size, 10 * damping


class _PointModel:
    """log ratio and transport of single points, as functions of the flat parameters."""

    def __init__(self, join: Any, scheme: Any, target: Any, log_density: Any):
        self.join, self.scheme, self.target, self.log_density = join, scheme, target, log_density

    def __call__(self, flat: Array, x: Float[Array, "n d"]) -> tuple[Array, Array]:
        pushed = self.scheme.push(self.join(flat), x)
        nll = -self.target.log_prob(pushed.points) - pushed.log_det
        known = 0.0 if self.log_density is None else self.log_density(x)
        return nll + known, pushed.transport

    def violation(self, flat: Array, x: Float[Array, "n d"]) -> Float[Array, " k"]:
        return self.scheme.violation(self.join(flat), spread(x))


def _chunks(x: Float[Array, "n d"]) -> Float[Array, "k c d"]:
    k = max(1, x.shape[0] // CHUNK)
    return x[: k * (x.shape[0] // k)].reshape(k, -1, x.shape[1])


def _measure(model: Any, kl: Any, alpha: float, flat: Array, x: Array) -> _Batch:
    def point(flat: Array, x: Array) -> tuple[Array, Array, Array]:
        def both(flat: Array) -> tuple[Array, Array]:
            u, transport = model(flat, x[None])
            return u[0], transport[0]

        (u, _), pull = jax.vjp(both, flat)
        one, zero = jnp.ones_like(u), jnp.zeros_like(u)
        return u, pull((one, zero))[0], pull((zero, one))[0]

    def body(total: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], None]:
        u, score, slope = jax.vmap(point, (None, 0))(flat, x)
        valid = jnp.isfinite(u)
        weight = jnp.where(valid, jax.vmap(jax.grad(kl))(u), 0.0)
        score = jnp.where(valid[:, None], score, 0.0)
        n = x.shape[0]
        safety = jax.grad(lambda flat: jnp.mean(model.violation(flat, x)))(flat)
        slope = jnp.mean(slope, axis=0) + alpha * ((weight @ score) / n + safety)
        return (total[0] + score.T @ score / n, total[1] + slope), None

    rows = _chunks(x)
    p, k = flat.size, rows.shape[0]
    zero = (jnp.zeros((p, p), flat.dtype), jnp.zeros_like(flat))
    (fisher, gradient), _ = jax.lax.scan(body, zero, rows)
    return _Batch(fisher / k, gradient / k, _count_invalid(model, flat, x))


def _count_invalid(model: Any, flat: Array, x: Array) -> Array:
    """Points of the batch, and between and around them, where the map is not invertible."""

    def body(total: Array, x: Array) -> tuple[Array, None]:
        u, _ = model(flat, jnp.concatenate([x, spread(x)]))
        return total + jnp.sum(~jnp.isfinite(u)), None

    return jax.lax.scan(body, jnp.zeros((), int), _chunks(x))[0]


@jax.jit
def _solve(fisher: Array, gradient: Array, damping: float) -> tuple[Array, Array]:
    """The natural direction, and the KL (nats) by which the full step would move the model."""
    ridge = damping * jnp.mean(jnp.diagonal(fisher))
    matrix = fisher + ridge * jnp.eye(gradient.size, dtype=gradient.dtype)
    direction = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), gradient)
    return direction, 0.5 * direction @ (fisher @ direction)
