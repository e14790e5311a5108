"""The conforming scheme: explicit Euler with the exact change of variables of its own map (SPEC 3).

The discrete map is itself a normalizing flow: its likelihood is exact at any number of steps, and
J(theta) >= J*_alpha wherever every step is invertible. One step is Brenier's map
T = x - grad Phi(x, 0).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme, Push, check_steps, rematerialised
from otflow.schemes.log_det import barrier_log_det, log_det, shortfall, solve_definite

_MOST_NEWTON = 60


class Conforming(AbstractScheme):
    """x_(k+1) = x_k - h grad Phi(x_k, t_k), log-det of I - h Hess Phi exactly (SPEC 3).

    A point at which some I - h Hess Phi is not positive definite is not `valid` and has log-det
    -inf. With `barrier`, as in training, its log-det is a finite, steep extension instead, so that
    an optimiser is pushed back. `pull` solves each step's convex problem by damped Newton.
    """

    n_steps: int = eqx.field(static=True, default=1)
    barrier: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        check_steps(self.n_steps)

    def takes(self, potential: AbstractPotential) -> bool:
        """Whether the potential is one for n_steps steps, or for any number."""
        return potential.n_steps in (None, self.n_steps)

    def for_training(self) -> "Conforming":
        """The same scheme with the barrier."""
        return Conforming(self.n_steps, barrier=True)

    def violation(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Shortfall of the eigenvalues of I - h Hess Phi below a margin, summed over the steps."""
        if potential.bijective:
            return super().violation(potential, x)
        h = 1 / self.n_steps
        eye = jnp.eye(x.shape[1], dtype=x.dtype)
        total = jnp.zeros(x.shape[0], x.dtype)
        for k in range(self.n_steps):
            found = potential.gradient_and_hessian(x, k * h)
            total = total + shortfall(eye - h * found.hessian)
            x = jax.lax.stop_gradient(x - h * found.gradient[:, :-1])
        return total

    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From t = 0 to t = 1 by n_steps Euler steps.

        Raises:
            ValueError: the potential is one of another number of steps.
        """
        if not self.takes(potential):
            raise ValueError(
                f"n_steps: expected {potential.n_steps}, the potential's; got {self.n_steps}."
            )
        h = 1 / self.n_steps
        determinant = barrier_log_det if self.barrier and not potential.bijective else log_det
        eye = jnp.eye(x.shape[1], dtype=x.dtype)

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            x, totals = carry
            found = potential.gradient_and_hessian(x, k * h)
            gradient, rate = found.gradient[:, :-1], found.gradient[:, -1]
            half_speed = 0.5 * jnp.sum(gradient**2, axis=1)
            change = determinant(eye - h * found.hessian)
            costs = jnp.stack([change, h * half_speed, h * jnp.abs(rate - half_speed)], axis=1)
            return (x - h * gradient, totals + costs), None

        start = (x, jnp.zeros((x.shape[0], 3), x.dtype))
        if self.n_steps == 1:
            (points, totals), _ = step(start, jnp.zeros((), x.dtype))
        else:
            times = jnp.arange(self.n_steps, dtype=x.dtype)
            (points, totals), _ = jax.lax.scan(rematerialised(step, self.n_steps), start, times)
        log_det_, transport, hjb = totals.T
        if potential.n_steps is not None:  # no time derivative: how far from straight lines
            hjb = jnp.maximum(2 * transport - jnp.sum((points - x) ** 2, axis=1), 0.0)
        return Push(points, log_det_, transport, hjb, jnp.isfinite(log_det_))

    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """The exact inverse of push: every step solved by Newton to rounding."""
        x, valid = y, jnp.ones(y.shape[0], bool)
        for k in reversed(range(self.n_steps)):
            x, converged = invert_step(potential, x, k / self.n_steps, 1 / self.n_steps)
            valid = valid & converged
        pushed = self.push(potential, x)
        return Push(x, -pushed.log_det, pushed.transport, pushed.hjb, valid & pushed.valid)

    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions after every step."""
        path = [x]
        for k in range(self.n_steps):
            gradient = potential.gradient(path[-1], k / self.n_steps)[:, :-1]
            path.append(path[-1] - gradient / self.n_steps)
        return jnp.stack(path)


class _Newton(NamedTuple):
    x: Float[Array, "n d"]
    residual: Float[Array, "n d"]
    matrix: Float[Array, "n d d"]
    damping: Float[Array, " n"]
    done: Bool[Array, " n"]
    iteration: Int[Array, ""]


def invert_step(
    potential: AbstractPotential, y: Float[Array, "n d"], t: float, h: float
) -> tuple[Float[Array, "n d"], Bool[Array, " n"]]:
    """x with x - h grad Phi(x, t) = y, by Newton with Levenberg damping, and where it converged.

    The problem is the minimisation of the convex |x|^2/2 - h Phi(x, t) - <x, y>. The start is the
    point that moves to y in a straight line with the velocity there: exact where trajectories are
    straight. A step that does not shrink the residual is not taken; its point's damping grows.
    """
    eye = jnp.eye(y.shape[1], dtype=y.dtype)
    scale = 1 + jnp.linalg.norm(y, axis=1)
    goal = 8 * jnp.finfo(y.dtype).eps * scale

    def linearise(x: Array) -> tuple[Array, Array]:
        found = potential.gradient_and_hessian(x, t)
        return x - h * found.gradient[:, :-1] - y, eye - h * found.hessian

    def body(state: _Newton) -> _Newton:
        damped = state.matrix + state.damping[:, None, None] * eye
        step = solve_definite(damped, state.residual)
        x = state.x - jnp.where(state.done[:, None], 0.0, step)
        residual, matrix = linearise(x)
        old, new = _norm(state.residual), _norm(residual)
        better = (new < old) & ~state.done
        pick = better[:, None]
        damping = jnp.where(better, state.damping * 0.1, 4 * state.damping + 1e-3)
        damping = jnp.where(better & (damping < 1e-4), 0.0, damping)
        # rounding: a full Newton step from a tiny residual that no longer helps has arrived
        arrived = (new <= goal) | (~better & (old <= 30 * goal) & (state.damping == 0))
        return _Newton(
            jnp.where(pick, x, state.x),
            jnp.where(pick, residual, state.residual),
            jnp.where(pick[:, None], matrix, state.matrix),
            damping,
            state.done | arrived,
            state.iteration + 1,
        )

    guess = y + h * potential.gradient(y, t + h)[:, :-1]
    residual, matrix = linearise(guess)
    n = y.shape[0]
    start = _Newton(
        guess, residual, matrix, jnp.zeros(n, y.dtype), _norm(residual) <= goal, jnp.zeros((), int)
    )
    end = jax.lax.while_loop(lambda s: (~s.done.all()) & (s.iteration < _MOST_NEWTON), body, start)
    return end.x, _norm(end.residual) <= 100 * goal


def _norm(r: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jnp.linalg.norm(r, axis=1)
