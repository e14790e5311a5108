"""The published scheme: classical RK4 on (x, log-det, transport, hjb) (SPEC 3)."""

import functools
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme, Push, check_steps, rematerialised, straightness
from otflow.schemes.implicit import inverse
from otflow.support.precision import default_rules

_MOST_CORRECTIONS = 8

Rates = Float[Array, "n 3"]  # d/dt of (log-det, transport, hjb)


class RK4(AbstractScheme):
    """Classical RK4 with `n_steps` equal steps; the trace where `trace` says.

    "stages" evaluates the Laplacian at all four Runge-Kutta stages, as the published code does.
    "simpson" evaluates it at the start, the middle and the end of a step and only gradients at the
    stages; the middle point comes from RK4's own continuous extension, fourth order like the rest.
    The end of a step is the start of the next: two Laplacians a step instead of four, and
    measured (docs/benchmarks.md) on average a smaller error at equal n_steps.
    """

    continuous: ClassVar[bool] = True

    n_steps: int = eqx.field(static=True, default=8)
    trace: Literal["simpson", "stages"] = eqx.field(static=True, default="simpson")

    def __check_init__(self) -> None:
        check_steps(self.n_steps)
        if self.trace not in ("simpson", "stages"):
            raise ValueError(f"trace: expected 'simpson' or 'stages'; got {self.trace!r}.")

    def refined(self) -> "RK4":
        """Twice the steps: the difference between the two estimates the integration error."""
        return RK4(2 * self.n_steps, self.trace)

    @default_rules()
    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From t = 0 to t = 1."""
        h = 1 / self.n_steps
        totals = jnp.zeros((x.shape[0], 3), x.dtype)
        body = _simpson_step if self.trace == "simpson" else _stages_step
        step = rematerialised(functools.partial(body, potential, h), self.n_steps)
        start = (x, *_evaluate(potential, x, 0.0), totals)
        (y, _, _, totals), _ = jax.lax.scan(step, start, jnp.arange(self.n_steps, dtype=x.dtype))
        log_det, transport, hjb = totals.T
        bend = straightness(x, y, transport)
        return Push(y, log_det, transport, bend, jnp.isfinite(log_det), hjb)

    @default_rules()
    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """The inverse of push to rounding: RK4 backwards, then corrected by its own defect.

        Points at which the correction does not converge, because the steps are too long, are not
        `valid`.
        """
        return inverse(RK4._pull, self, potential, y)

    def _pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        x, converged = self._invert(potential, y)
        return self.push(potential, x).inverted(x, converged)

    @default_rules()
    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions at the ends of the steps, by gradients alone."""
        return jnp.concatenate([x[None], self._path(potential, x, 0.0, 1.0)])

    def _path(
        self, potential: AbstractPotential, x: Float[Array, "n d"], t0: float, t1: float
    ) -> Float[Array, "steps n d"]:
        h = (t1 - t0) / self.n_steps

        def step(x: Array, k: Array) -> tuple[Array, Array]:
            t = (t0 + k * h).astype(x.dtype)
            _, x = _middle_and_end(potential, x, t, h, velocity(potential, x, t))
            return x, x

        return jax.lax.scan(step, x, jnp.arange(self.n_steps))[1]

    def _invert(
        self, potential: AbstractPotential, y: Float[Array, "n d"]
    ) -> tuple[Float[Array, "n d"], Bool[Array, " n"]]:
        """x with push(x) = y, and where it was found.

        Backward RK4 B is a near inverse of the forward map F: the aim is moved by what F(B(aim))
        misses y, which shrinks by the relative integration error each time.
        """
        goal = 8 * jnp.finfo(y.dtype).eps * self.n_steps * (1 + jnp.linalg.norm(y, axis=1))

        def attempt(aim: Array) -> tuple[Array, Array]:
            x = self._path(potential, aim, 1.0, 0.0)[-1]
            return x, y - self._path(potential, x, 0.0, 1.0)[-1]

        def body(state: tuple) -> tuple:
            k, aim, best, missed, size = state
            aim = aim + missed
            x, missed = attempt(aim)
            new = jnp.linalg.norm(missed, axis=1)
            better = new < size
            best = jnp.where(better[:, None], x, best)
            return k + 1, aim, best, missed, jnp.minimum(new, size)

        def goes_on(state: tuple) -> Array:
            return (state[0] < _MOST_CORRECTIONS) & jnp.any(state[4] > goal)

        x, missed = attempt(y)
        start = (0, y, x, missed, jnp.linalg.norm(missed, axis=1))
        _, _, x, _, size = jax.lax.while_loop(goes_on, body, start)
        return x, size <= 100 * goal


def velocity(
    potential: AbstractPotential, x: Float[Array, "n d"], t: Array | float
) -> Float[Array, "n d"]:
    """v = -grad_x Phi."""
    return -potential.gradient(x, t)[:, :-1]


def _evaluate(
    potential: AbstractPotential, x: Float[Array, "n d"], t: Array | float
) -> tuple[Float[Array, "n d"], Rates]:
    found = potential.gradient_and_laplacian(x, t)
    v = -found.gradient[:, :-1]
    half_speed = 0.5 * jnp.sum(v * v, axis=1)
    residual = jnp.abs(found.gradient[:, -1] - half_speed)
    return v, jnp.stack([-found.laplacian, half_speed, residual], axis=1)


def _middle_and_end(
    potential: AbstractPotential, x: Array, t: Array, h: float, k1: Array
) -> tuple[Array, Array]:
    """One RK4 step from (x, t), where the velocity is k1: positions at t + h/2 and t + h.

    The middle is RK4's cubic continuous extension (Hairer, Norsett, Wanner I, II.6) at 1/2.
    """
    k2 = velocity(potential, x + 0.5 * h * k1, t + 0.5 * h)
    k3 = velocity(potential, x + 0.5 * h * k2, t + 0.5 * h)
    k4 = velocity(potential, x + h * k3, t + h)
    middle = x + (h / 24) * (5 * k1 + 4 * (k2 + k3) - k4)
    return middle, x + (h / 6) * (k1 + 2 * (k2 + k3) + k4)


def _simpson_step(potential, h, carry, k):
    """RK4 for the position; Simpson's rule for the rates, at both ends and the middle."""
    x, v, rates, totals = carry
    t = k * h
    middle, end = _middle_and_end(potential, x, t, h, v)
    _, rates_middle = _evaluate(potential, middle, t + 0.5 * h)
    v_end, rates_end = _evaluate(potential, end, t + h)
    totals = totals + (h / 6) * (rates + 4 * rates_middle + rates_end)
    return (end, v_end, rates_end, totals), None


def _stages_step(potential, h, carry, k):
    """RK4 for position and rates together, as published."""
    x, v1, r1, totals = carry
    t = k * h
    v2, r2 = _evaluate(potential, x + 0.5 * h * v1, t + 0.5 * h)
    v3, r3 = _evaluate(potential, x + 0.5 * h * v2, t + 0.5 * h)
    v4, r4 = _evaluate(potential, x + h * v3, t + h)
    x = x + (h / 6) * (v1 + 2 * v2 + 2 * v3 + v4)
    totals = totals + (h / 6) * (r1 + 2 * r2 + 2 * r3 + r4)
    return (x, *_evaluate(potential, x, t + h), totals), None
