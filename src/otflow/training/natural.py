"""Natural-gradient descent: second order where first-order training stalls.

The metric is the Fisher information of the model density, E[grad log p (grad log p)'], averaged
over recent batches: the curvature of the KL term, which dominates at large alpha. A step solves a
dense system, so it is for potentials of up to a few thousand parameters.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from otflow.data.rows import Rows, as_rows
from otflow.flow.objective import nll, normalisers, variate_share
from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.support.checks import check_count, check_number
from otflow.support.compiling import hot_jit
from otflow.targets import AbstractTarget
from otflow.training.step import split_trainable

CHUNK = 250  # points whose parameter gradients are held at once
MOST_PARAMETERS = 8000  # the Fisher matrix of more would take over 256 MB in float32
_TRIES = 6


@dataclasses.dataclass(frozen=True)
class NaturalConfig:
    """Hyperparameters of a natural-gradient run.

    Attributes:
        alpha: weight of the nll, > 0.
        max_iter: steps.
        batch_size: points a step; all of them are used where they are at most 250 or a multiple.
        step: fraction of the full natural step at the start, decaying linearly to 0.
        largest_kl: a step is shortened so that the model density moves by at most this, nats.
        memory: weight of the past in the running average of the Fisher information, in [0, 1).
        damping: multiple of the mean diagonal added to it.
        monotone: take only steps that lower the batch's objective, as for a fixed data set.
    """

    alpha: float = 30.0
    max_iter: int = 200
    batch_size: int = 2000
    step: float = 0.5
    largest_kl: float = 2e-3
    memory: float = 0.9
    damping: float = 2e-4
    monotone: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "step", "largest_kl", "damping"):
            check_number(name, getattr(self, name), positive=True)
        for name in ("max_iter", "batch_size"):
            check_count(name, getattr(self, name))
        check_number("memory", self.memory, positive=False)
        if self.memory >= 1:
            raise ValueError(f"memory: expected a number in [0, 1); got {self.memory}.")


class NaturalState(eqx.Module):
    """Flat parameters, running averages of the Fisher information and of the mean of e = exp(-u)
    and e^2, u the log ratio, steps tried, and those not taken."""

    flat: Float[Array, " p"]
    fisher: Float[Array, "p p"]
    moments: Float[Array, "2"]
    iteration: Int[Array, ""]
    failed: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class PointModel:
    """Log ratio and transport of points as functions of the flat parameters.

    join: flat parameters to a potential. log_density: log rho0 where it is known; without it the
    log ratio is the nll. guard: points, beside those of the batch, where the map has to be
    invertible; they make the class of maps the same for every data set.
    """

    join: Callable[[Array], AbstractPotential]
    scheme: AbstractScheme
    target: AbstractTarget
    log_density: Callable[[Array], Array] | None = None
    guard: Float[Array, "g d"] | None = None

    def __call__(self, flat: Array, x: Float[Array, "n d"] | Rows) -> tuple[Array, Array]:
        rows = as_rows(x)
        pushed = self.scheme.push(self.join(flat).given(rows.condition), rows.x)
        cost = nll(self.target.given(rows.condition), pushed)
        known = 0.0 if self.log_density is None else self.log_density(rows.x)
        return cost + known, pushed.transport

    def violation(self, flat: Array, x: Float[Array, "n d"] | Rows) -> Float[Array, ""]:
        """Mean shortfall between and around the points."""
        around = as_rows(x).around()
        potential = self.join(flat).given(around.condition)
        return jnp.mean(self.scheme.violation(potential, around.x))

    def guarded(self, flat: Array) -> tuple[Float[Array, ""], Int[Array, ""]]:
        """Mean shortfall at the guard points, and how many of them are invalid."""
        if self.guard is None:
            return jnp.zeros((), flat.dtype), jnp.zeros((), int)
        potential = self.join(flat)
        invalid = jnp.sum(~self.scheme.push(potential, self.guard).valid)
        return jnp.mean(self.scheme.violation(potential, self.guard)), invalid


class _Batch(NamedTuple):
    """Fisher information, moments; gradient and value of the objective; invalid points."""

    fisher: Float[Array, "p p"]
    moments: Float[Array, "2"]
    gradient: Float[Array, " p"]
    value: Float[Array, ""]
    invalid: Int[Array, ""]


def natural_step(
    model: PointModel,
    config: NaturalConfig,
    alpha: float | Array,
    state: NaturalState,
    x: Float[Array, "n d"] | Rows,
) -> NaturalState:
    """One step on a batch; `config.alpha` is not used, so that alpha may be traced.

    A step that adds points of the batch, or between and around them, at which the map is not
    invertible, or that cannot be solved for, is shortened and more damped; after six tries the
    parameters stay.
    """
    x = as_rows(x)
    batch = _measure(model, alpha, _share(model, state, x), state.flat, x)
    k = state.iteration.astype(batch.fisher.dtype)
    r = jnp.minimum(config.memory, k / (k + 1))
    fisher = r * state.fisher + (1 - r) * batch.fisher
    moments = r * state.moments + (1 - r) * batch.moments
    size = config.step * jnp.minimum(1.0, (k + 1) / 5) * (1 - k / config.max_iter)

    def attempt(carry: tuple) -> tuple:
        tries, size, damping, _, _ = carry
        direction, kl = _solve(fisher, batch.gradient / alpha, damping)
        shorten = jnp.sqrt(jnp.minimum(1.0, config.largest_kl / jnp.maximum(kl, 1e-30)))
        flat = state.flat - size * shorten * direction
        value, invalid = _value(model, alpha, flat, x)
        rise = 0.0 if config.monotone else 2 * alpha * config.largest_kl
        good = jnp.isfinite(kl) & (invalid <= batch.invalid) & (value < batch.value + rise)
        return tries + 1, 0.5 * size, 10 * damping, flat, good

    def goes_on(carry: tuple) -> Array:
        return ~carry[4] & (carry[0] < _TRIES)

    start = (0, size, jnp.asarray(config.damping, size.dtype), state.flat, jnp.zeros((), bool))
    *_, flat, good = jax.lax.while_loop(goes_on, attempt, start)
    failed = state.failed + (~good).astype(state.failed.dtype)
    flat = jnp.where(good, flat, state.flat)
    return NaturalState(flat, fisher, moments, state.iteration + 1, failed)


def start_state(flat: Float[Array, " p"]) -> NaturalState:
    """Before the first step."""
    p, none = flat.size, jnp.zeros((), jnp.int32)
    fisher, moments = jnp.zeros((p, p), flat.dtype), jnp.zeros(2, flat.dtype)
    return NaturalState(flat, fisher, moments, none, none)


@hot_jit
def _step(state: NaturalState, x: Rows, pieces: Any, config: NaturalConfig) -> NaturalState:
    """`natural_step`; descents of a shape share its program, so that a second compiles nothing."""
    params, static, *others = pieces
    unravel = ravel_pytree(params)[1]
    model = PointModel(lambda flat: eqx.combine(unravel(flat), static), *others)
    return natural_step(model, config, config.alpha, state, x)


class NaturalDescent:
    """Natural-gradient steps on a potential's trainable parameters, one call a step.

    Args:
        potential: where to start.
        scheme: the time discretisation.
        target: rho1.
        config: hyperparameters.
        log_density: log rho0, where it is known: a control variate for the gradient, whose noise
            then vanishes with the log ratios.

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
        flat, unravel = ravel_pytree(params)
        if flat.size > MOST_PARAMETERS:
            raise ValueError(
                f"potential: natural gradients take at most {MOST_PARAMETERS} parameters; "
                f"got {flat.size}. Use a smaller width or depth 0."
            )
        self.config, self.state = config, start_state(flat)
        self._join = lambda flat: eqx.combine(unravel(flat), static)
        self._pieces = params, static, scheme, target, log_density

    @property
    def potential(self) -> AbstractPotential:
        """The potential at the current parameters."""
        return self._join(self.state.flat)

    @property
    def iteration(self) -> int:
        """Steps tried."""
        return int(self.state.iteration)

    @property
    def failed(self) -> int:
        """Steps that were not taken: none of six sizes was safe or lowered the objective."""
        return int(self.state.failed)

    def step(self, x: Float[Array, "n d"] | Rows) -> None:
        """One step on a batch (see `natural_step`)."""
        self.state = _step(self.state, as_rows(x), self._pieces, self.config)


def _chunks(rows: Rows) -> tuple[Rows, int]:
    """The rows in chunks of a common size, those beyond left out, and how many chunks."""
    k = max(1, rows.n // CHUNK)
    size = rows.n // k
    cut = rows.take(slice(k * size))
    return jax.tree.map(lambda a: a.reshape(k, size, *a.shape[1:]), cut), k


def _share(model: PointModel, state: NaturalState, x: Rows) -> Float[Array, ""]:
    """c = E e / E e^2 of earlier batches: none is a judge of itself but the first."""
    if model.log_density is None:
        return jnp.zeros((), state.flat.dtype)

    def own() -> Float[Array, "2"]:
        return _variate_moments(x, normalisers(model(state.flat, x)[0]))

    moments = jax.lax.cond(state.iteration == 0, own, lambda: state.moments)
    return variate_share(*moments)


def _variate_moments(x: Rows, e: Array) -> Float[Array, "2"]:
    """E e and E e^2 of the weighted points: their errors have the squares of the weights."""
    return jnp.stack([x.mean(x.weighted(e)), x.mean(x.weighted(e**2))])


def _measure(model: PointModel, alpha: float | Array, c: Array, flat: Array, x: Rows) -> _Batch:
    """What a step needs of a batch.

    The mean of e score is 0 in a normalised model: scores weigh 1 - c e, which is smallest at
    c = E e / E e^2 (`_share`).
    """

    def point(flat: Array, x: Rows) -> tuple[Array, Array, Array]:
        def both(flat: Array) -> tuple[Array, Array]:
            u, transport = model(flat, x.take(None))  # one row, with its axis
            return u[0], transport[0]

        (u, _), pull = jax.vjp(both, flat)
        one, zero = jnp.ones_like(u), jnp.zeros_like(u)
        return u, pull((one, zero))[0], pull((zero, one))[0]

    def body(total: tuple[Array, ...], x: Rows) -> tuple[tuple[Array, ...], None]:
        u, score, slope = jax.vmap(point, (None, 0))(flat, x)
        score = jnp.where(jnp.isfinite(u)[:, None], score, 0.0)
        e = jnp.zeros_like(u) if model.log_density is None else normalisers(u)
        safety = jax.grad(model.violation)(flat, x)
        pull = x.weighted(1 - c * e) @ score / x.n + safety
        slope = jnp.mean(x.weighted(slope), axis=0) + alpha * pull
        found = (score.T @ x.weighted(score) / x.n, slope, _variate_moments(x, e))
        return jax.tree.map(jnp.add, total, found), None

    rows, k = _chunks(x)
    p = flat.size
    zero = tuple(jnp.zeros(size, flat.dtype) for size in ((p, p), (p,), (2,)))
    (fisher, gradient, moments), _ = jax.lax.scan(body, zero, rows)
    gradient = gradient / k + alpha * jax.grad(lambda flat: model.guarded(flat)[0])(flat)
    return _Batch(fisher / k, moments / k, gradient, *_value(model, alpha, flat, x))


def _value(
    model: PointModel, alpha: float | Array, flat: Array, x: Rows
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """The batch's objective, violation included, and how many points are invalid, which do not
    count in it: of the batch, around it, guard."""

    def body(total: tuple[Array, Array], x: Rows) -> tuple[tuple[Array, Array], None]:
        n, points = x.n, Rows(x.x, condition=x.condition)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), points, x.around())
        u, transport = model(flat, both)
        kl = x.mean(jnp.where(jnp.isfinite(u[:n]), u[:n], 0.0))
        value = x.mean(transport[:n]) + alpha * (kl + model.violation(flat, x))
        return (total[0] + value, total[1] + jnp.sum(~jnp.isfinite(u))), None

    rows, k = _chunks(x)
    (value, invalid), _ = jax.lax.scan(body, (jnp.zeros((), x.x.dtype), jnp.zeros((), int)), rows)
    shortfall, beyond = model.guarded(flat)
    return value / k + alpha * shortfall, invalid + beyond


def _solve(fisher: Array, gradient: Array, damping: Array) -> tuple[Array, Array]:
    """The natural direction, and the KL (nats) by which it would move the model."""
    ridge = damping * jnp.mean(jnp.diagonal(fisher))
    matrix = fisher + ridge * jnp.eye(gradient.size, dtype=gradient.dtype)
    direction = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), gradient)
    return direction, 0.5 * direction @ (fisher @ direction)
