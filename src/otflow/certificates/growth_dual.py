"""The dual of transport with growth, bounded rigorously (SPEC 6 and 10).

With c = -2 delta^2 log cos^2(min(|x - y| / (2 delta), pi/2)) and phi(x) + psi(y) <= c(x, y),

    WFR(mu, nu) >= 2 delta^2 [int (1 - exp(-phi / (2 delta^2))) dmu
                              + int (1 - exp(-psi / (2 delta^2))) dnu].

phi = |x|^2/2 - u with u kappa-strongly convex. c(., y) has a Hessian of at least 1 where it is
finite, |x - y| < pi delta, so that g = c(., y) - phi is kappa-strongly convex on that ball and

    psi(y) = g(x) - |grad g(x)|^2 / (2 kappa) <= min g        at any x of the ball

is allowed, however badly the minimum was looked for.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.certificates.convex import ConvexPotential
from otflow.parallel.batching import map_rows
from otflow.support.precision import precision

_NEWTON = 12  # steps of the inner problem
_INSIDE = 0.999  # share of the ball's radius up to which candidates are taken


class GrowthDual(eqx.Module):
    """phi = |x|^2/2 - u(x) + level, and what bounds its transform."""

    u: ConvexPotential
    level: Float[Array, ""]
    delta: float = eqx.field(static=True)

    def share_x(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """exp(-phi / (2 delta^2)) at n points."""
        phi = 0.5 * jnp.sum(x**2, axis=1) - self.u.value(x) + self.level
        return jnp.exp(-phi / (2 * self.delta**2))

    def share_y(self, y: Float[Array, "n d"], near: Float[Array, "n d"]) -> Float[Array, " n"]:
        """A bound from above of exp(-psi / (2 delta^2)) at n points y, the search from `near`."""
        reach = _INSIDE * math.pi * self.delta

        def inside(x: Array) -> Array:
            length = jnp.linalg.norm(x - y, axis=1, keepdims=True)
            return y + (x - y) * jnp.minimum(1.0, reach / jnp.maximum(length, 1e-30))

        def newton(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple, None]:
            x, best, damping = carry
            value, gradient, hessian = self._inner(x, y)
            bound = value - jnp.sum(gradient**2, axis=1) / (2 * self.u.kappa)
            bound = jnp.where(jnp.isnan(bound), -jnp.inf, bound)
            eye = jnp.eye(x.shape[1], dtype=x.dtype)
            damped = hessian + damping[:, None, None] * eye
            moved = inside(x - jnp.linalg.solve(damped, gradient[..., None])[..., 0])
            lower = self._inner(moved, y)[0] <= value
            damping = jnp.where(lower, 0.1 * damping, 10 * damping + 0.1)
            x = jnp.where(lower[:, None], moved, x)
            return (x, jnp.maximum(best, bound), damping), None

        start = (inside(near), jnp.full(y.shape[0], -jnp.inf), jnp.zeros(y.shape[0]))
        best = jax.lax.scan(newton, start, length=_NEWTON)[0][1]
        return jnp.exp(-best / (2 * self.delta**2))

    def _inner(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """g at n points with its gradient and Hessian."""

        def g(x: Array, y: Array) -> Array:
            square = jnp.sum((x - y) ** 2) / (4 * self.delta**2)
            phi = 0.5 * jnp.sum(x**2) - self.u.value(x[None])[0] + self.level
            return 2 * self.delta**2 * _minus_log_cos(square) - phi

        gradient = jax.grad(g)
        found = jax.vmap(g)(x, y), jax.vmap(gradient)(x, y), jax.vmap(jax.jacfwd(gradient))(x, y)
        return found


def _minus_log_cos(square: Array) -> Array:
    """-log cos^2 of an angle from its square, smooth at 0; infinite from pi/2 on."""
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1e-4, square))
    far = jnp.where(angle < math.pi / 2, -2 * jnp.log(jnp.cos(angle)), jnp.inf)
    near = square + square**2 / 6 + 2 * square**3 / 45 + 17 * square**4 / 1260
    return jnp.where(small, near, far)


def shares_x(dual: GrowthDual, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    """exp(-phi / (2 delta^2)) at rows, float64, shape (n,)."""
    with precision("float64"):
        return map_rows(lambda rows: _share_x(dual, jnp.asarray(rows)), x)


def shares_y(
    dual: GrowthDual, y: Float[np.ndarray, "n d"], near: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """The bound of exp(-psi / (2 delta^2)) at rows y, float64, shape (n,)."""
    with precision("float64"):
        both = np.column_stack([y, near])
        return map_rows(lambda rows: _share_y(dual, jnp.asarray(rows)), both, 1024)


@eqx.filter_jit
def _share_x(dual: GrowthDual, x: Array) -> Array:
    return dual.share_x(x)


@eqx.filter_jit
def _share_y(dual: GrowthDual, both: Array) -> Array:
    return dual.share_y(*jnp.split(both, 2, axis=1))
