"""Inverses of Euler steps by damped Newton: of bijections, and of steps that may fold."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from otflow.potentials.base import AbstractPotential, AbstractStages
from otflow.schemes.log_det import solve_definite, solve_packed

_MOST_NEWTON = 60
_FEW = 8  # once no more than 1 in so many is left, the others stop costing


# (potential, y, t, x): the residual's size, the Newton step and the log-determinant at x
Solved = Callable[[AbstractStages, Array, Array | float, Array], tuple[Array, Array, Array]]


class Inverted(eqx.Module):
    """Points that a stage takes to given ones, its log-determinant there, where it was solved."""

    points: Float[Array, "n d"]
    log_det: Float[Array, " n"]
    converged: Bool[Array, " n"]


class _Descent(NamedTuple):
    x: Float[Array, "n d"]
    newton: Float[Array, "n d"]  # the full step from x
    size: Float[Array, " n"]  # of the residual
    length: Float[Array, " n"]  # of the step to try, 1 at first
    log_det: Float[Array, " n"]
    done: Bool[Array, " n"]


def invert_stage(
    potential: AbstractStages,
    y: Float[Array, "n d"],
    t: Array | float,
    guess: Float[Array, "n d"] | None = None,
    solved: Solved | None = None,
    loose: float = 1.0,
) -> Inverted:
    """x with T_k(x) = y, k the stage of t, by Newton with a line search.

    The Jacobian is positive definite with eigenvalues above a floor, so a short enough step always
    shrinks the residual and the iteration converges from anywhere. Without a guess it starts where
    a point comes from that goes on as y would. The last few points go on without the others.
    `solved` is of another map than grad u_k; residuals may be `loose` times those of rounding.
    """
    solved = _solved if solved is None else solved
    goal = loose * _goal(y)
    few = (y.shape[0] + _FEW - 1) // _FEW
    x = 2 * y - potential.image(y, t) if guess is None else guess
    size, newton, log_det = solved(potential, y, t, x)
    start = _Descent(x, newton, size, jnp.ones_like(size), log_det, size <= goal)
    found = _descend(potential, y, t, start, few, solved, goal)
    last = jax.lax.slice_in_dim(jnp.argsort(found.done), 0, few)
    of_last = _Descent(*(array[last] for array in found))
    rest = _descend(potential.of_points(last), y[last], t, of_last, 0, solved, goal[last])
    found = _Descent(*(array.at[last].set(new) for array, new in zip(found, rest, strict=True)))
    return Inverted(found.x, found.log_det, found.size <= 100 * goal)


def _descend(
    potential: AbstractStages,
    y: Float[Array, "n d"],
    t: Array | float,
    start: _Descent,
    left: int,
    solved: Solved,
    goal: Float[Array, " n"],
) -> _Descent:
    """Newton steps until no more than `left` points are not done."""

    def body(carry: tuple[_Descent, Array]) -> tuple[_Descent, Array]:
        state, iteration = carry
        x = state.x - state.length[:, None] * state.newton
        size, newton, log_det = solved(potential, y, t, x)
        better = (size < state.size) & ~state.done
        kept = better[:, None]
        # rounding: a full step from a tiny residual that no longer helps has arrived
        stuck = ~better & (state.length == 1) & (state.size <= 30 * goal)
        new = _Descent(
            jnp.where(kept, x, state.x),
            jnp.where(kept, newton, state.newton),
            jnp.where(better, size, state.size),
            jnp.where(better, jnp.minimum(1.0, 4 * state.length), 0.25 * state.length),
            jnp.where(better, log_det, state.log_det),
            state.done | stuck | (better & (size <= goal)),
        )
        return new, iteration + 1

    def goes_on(carry: tuple[_Descent, Array]) -> Array:
        return (jnp.sum(~carry[0].done) > left) & (carry[1] < _MOST_NEWTON)

    return jax.lax.while_loop(goes_on, body, (start, jnp.zeros((), int)))[0]


def _solved(
    potential: AbstractStages, y: Float[Array, "n d"], t: Array | float, x: Float[Array, "n d"]
) -> tuple[Float[Array, " n"], Float[Array, "n d"], Float[Array, " n"]]:
    """The residual's size, the Newton step and the log-determinant at x."""
    found = potential.step(x, t)
    residual = found.points - y
    log_det, newton = solve_packed(found.jacobian, residual)
    return _norm(residual), newton, log_det


def _goal(y: Float[Array, "n d"]) -> Float[Array, " n"]:
    return 8 * jnp.finfo(y.dtype).eps * (1 + _norm(y))


class _Newton(NamedTuple):
    x: Float[Array, "n d"]
    residual: Float[Array, "n d"]
    matrix: Float[Array, "n d d"]
    damping: Float[Array, " n"]
    done: Bool[Array, " n"]
    iteration: Int[Array, ""]


def invert_step(
    potential: AbstractPotential, y: Float[Array, "n d"], t: Array, end: Array, h: float
) -> tuple[Float[Array, "n d"], Bool[Array, " n"]]:
    """x with x - h grad Phi(x, t) = y, by Newton with Levenberg damping, and where it converged.

    The problem is the minimisation of the convex |x|^2/2 - h Phi(x, t) - <x, y>. The start is the
    point that moves to y in a straight line with the velocity there, at `end`, t + h: exact where
    trajectories are straight. A step that does not shrink the residual is not taken; its point's
    damping grows.
    """
    eye = jnp.eye(y.shape[1], dtype=y.dtype)
    goal = _goal(y)

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

    guess = y + h * potential.gradient(y, end)[:, :-1]
    residual, matrix = linearise(guess)
    n = y.shape[0]
    start = _Newton(
        guess, residual, matrix, jnp.zeros(n, y.dtype), _norm(residual) <= goal, jnp.zeros((), int)
    )
    last = jax.lax.while_loop(lambda s: (~s.done.all()) & (s.iteration < _MOST_NEWTON), body, start)
    return last.x, _norm(last.residual) <= 100 * goal


def _norm(r: Float[Array, "n d"]) -> Float[Array, " n"]:
    return jnp.linalg.norm(r, axis=1)
