"""Derivatives of a scheme's inverse: those of the implicit function, in points and parameters."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme, Push
from otflow.support.precision import precision


@eqx.filter_custom_jvp
def inverse(
    solve: Callable[..., Push],
    scheme: AbstractScheme,
    potential: AbstractPotential,
    y: Float[Array, "n d"],
) -> Push:
    """solve(scheme, potential, y), the pull, with derivatives whatever way it was found.

    From T(x, theta) = y follows dx = (dT/dx)^-1 (dy - dT/dtheta dtheta). Points that are not
    `valid` have derivatives 0. In either mode, and again: a solver's iterations are never
    differentiated.
    """
    return solve(scheme, potential, y)


@inverse.def_jvp
def _inverse_jvp(primals, tangents):
    solve, scheme, potential, y = primals
    *_, d_potential, dy = tangents
    with precision(y.dtype):
        found = inverse(solve, scheme, potential, y)
    keep = found.valid[:, None]
    x = jnp.where(keep, found.points, 0.0)

    def end(potential: AbstractPotential, x: Array) -> Array:
        return scheme.trajectories(potential, x)[-1]

    def column(e: Array) -> Array:
        return _moved(end, (potential, x), (None, jnp.broadcast_to(e, x.shape)))

    def back(potential: AbstractPotential, x: Array) -> Push:
        return scheme.push(potential, x).inverted(x, found.valid)

    with precision(y.dtype):
        eye = jnp.eye(x.shape[1], dtype=x.dtype)
        jacobian = jnp.where(keep[..., None], jax.vmap(column, out_axes=2)(eye), eye)
        missed = -_moved(end, (potential, x), (d_potential, None))
        missed = missed if dy is None else dy + missed
        dx = jnp.linalg.solve(jacobian, jnp.where(keep, missed, 0.0)[..., None])[..., 0]
        moved = _moved(back, (potential, x), (d_potential, dx))

    def kept(tangent: Array) -> Array | None:
        if not jnp.issubdtype(tangent.dtype, jnp.floating):  # of `valid`
            return None
        return jnp.where(keep if tangent.ndim == 2 else found.valid, tangent, 0.0)

    return found, jax.tree.map(kept, moved)


def _moved(function: Callable[..., Any], primals: tuple, tangents: tuple) -> Any:
    """The directional derivative of function(*primals); None stands for no direction."""
    directions = tuple(
        jax.tree.map(lambda _: None, primal) if tangent is None else tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    )
    moves = jax.tree.map(lambda d: d is not None, directions, is_leaf=lambda d: d is None)
    moving, still = eqx.partition(primals, moves)
    if not jax.tree.leaves(moving):
        return jax.tree.map(jnp.zeros_like, function(*primals))
    return jax.jvp(lambda *m: function(*eqx.combine(m, still)), moving, directions)[1]
