"""Upper bounds of the conjugate u*(y) = max_x <x, y> - u(x) that hold at any candidate (SPEC 6)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from otflow.certificates.convex import ConvexPotential


def conjugate_bound(
    u: ConvexPotential, candidate: Float[Array, "n d"], y: Float[Array, "n d"]
) -> Float[Array, " n"]:
    """u*(y) <= |grad g|^2 / (2 kappa) - g at the candidate, with g = u - <., y>, shape (n,).

    g is kappa-strongly convex, so min g >= g(x) - |grad g(x)|^2 / (2 kappa) for every x: the bound
    is rigorous however badly the inner problem was solved, and tight where grad u(candidate) = y.
    Source: SPEC 6.
    """
    found = u.value_and_gradient(candidate)
    residual = found.gradient - y
    g = found.value - jnp.sum(candidate * y, axis=1)
    return jnp.sum(residual**2, axis=1) / (2 * u.kappa) - g


def fenchel_gap(
    u: ConvexPotential,
    x: Float[Array, "n d"],
    y: Float[Array, "n d"],
    candidate: Float[Array, "n d"],
) -> Float[Array, " n"]:
    """A bound from above of u(x) + u*(y) - <x, y> >= 0, shape (n,), squared data units.

    The better of the bounds at the candidate and at x itself.
    """
    conjugate = jnp.minimum(conjugate_bound(u, candidate, y), conjugate_bound(u, x, y))
    return u.value(x) + conjugate - jnp.sum(x * y, axis=1)


class _State(NamedTuple):
    x: Float[Array, "n d"]
    g: Float[Array, " n"]
    residual: Float[Array, "n d"]
    damping: Float[Array, " n"]
    iteration: Int[Array, ""]


def maximisers(
    u: ConvexPotential,
    y: Float[Array, "n d"],
    guess: Float[Array, "n d"],
    iterations: int,
    cg_steps: int,
    tolerance: float,
) -> Float[Array, "n d"]:
    """Points where grad u ~ y: Newton with Levenberg damping, each system by conjugate gradients.

    A step that does not lower g = u - <., y> is not taken; its point's damping grows instead. No
    matrix is factorised, so high dimension costs products only.

    Args:
        u: the potential.
        y: where u* is wanted, shape (n, d).
        guess: where to start, shape (n, d).
        iterations: most Newton steps.
        cg_steps: conjugate-gradient steps of each.
        tolerance: stop when every point's bound is within this of u*, squared data units.
    """

    def evaluate(x: Array) -> tuple[Array, Array]:
        found = u.value_and_gradient(x)
        return found.value - jnp.sum(x * y, axis=1), found.gradient - y

    def unfinished(state: _State) -> Array:
        loss = jnp.sum(state.residual**2, axis=1) / (2 * u.kappa)
        return (loss > tolerance).any() & (state.iteration < iterations)

    def body(state: _State) -> _State:
        _, product = jax.linearize(u.gradient, state.x)
        step = _conjugate_gradients(
            lambda p: product(p) + state.damping[:, None] * p, -state.residual, cg_steps
        )
        x = state.x + step
        g, residual = evaluate(x)
        # at rounding level g no longer tells: there the residual does
        smaller = jnp.sum(residual**2, axis=1) < jnp.sum(state.residual**2, axis=1)
        level = 1e-6 * (1 + jnp.abs(state.g))
        better: Bool[Array, " n"] = (g < state.g - level) | (smaller & (g < state.g + level))
        pick = better[:, None]
        damping = jnp.where(better, 0.1 * state.damping, 4 * state.damping + 0.1)
        return _State(
            jnp.where(pick, x, state.x),
            jnp.where(better, g, state.g),
            jnp.where(pick, residual, state.residual),
            jnp.where(damping < 1e-3, 0.0, damping),
            state.iteration + 1,
        )

    g, residual = evaluate(guess)
    begin = _State(guess, g, residual, jnp.zeros_like(g), jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, body, begin).x


def _conjugate_gradients(
    product: Callable[[Array], Array], right: Float[Array, "n d"], steps: int
) -> Float[Array, "n d"]:
    """Approximate solutions of n positive definite systems at once."""

    def body(_: Array, carry: tuple[Array, Array, Array, Array]) -> tuple:
        x, r, p, rr = carry
        Ap = product(p)
        length = rr / jnp.maximum(jnp.sum(p * Ap, axis=1), tiny)
        x = x + length[:, None] * p
        r = r - length[:, None] * Ap
        new = jnp.sum(r * r, axis=1)
        p = r + (new / jnp.maximum(rr, tiny))[:, None] * p
        return x, r, p, new

    tiny = jnp.finfo(right.dtype).tiny
    begin = (jnp.zeros_like(right), right, right, jnp.sum(right**2, axis=1))
    return jax.lax.fori_loop(0, steps, body, begin)[0]
