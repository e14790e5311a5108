"""The law that a flow gives to N(0, I): draws without an inverse, and their log-density."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.data.preprocessing import ColumnMap
from otflow.flow.unnormalised import LogDensity, OnLine, from_line
from otflow.flow.wide import Wide
from otflow.parallel.batching import map_rows
from otflow.potentials.base import AbstractPotential
from otflow.schemes import Conforming
from otflow.support.checks import check_shapes
from otflow.support.precision import dtype_of, precision
from otflow.targets import StandardNormal

_BATCH = 2**12  # points a call
_JACOBIANS = 64


class Draws(NamedTuple):
    """Parameters, their log-density q, and the log weights log p + log Z - log q, float64."""

    points: Float[np.ndarray, "n d"]
    log_prob: Float[np.ndarray, " n"]
    log_weight: Float[np.ndarray, " n"]


class PushedNormal(eqx.Module):
    """theta of y = shift + factor T(x), x ~ N(0, I): theta by the inverse of `columns` from y.

    T is the map of convex stages, a bijection, so the density of theta is one.
    """

    potential: AbstractPotential
    scheme: Conforming
    columns: ColumnMap
    shift: Float[Array, " d"]
    factor: Float[Array, "d d"]

    def __check_init__(self) -> None:
        d = self.potential.dim
        check_shapes(self, {"shift": (d,), "factor": (d, d)})
        if len(self.columns.step) != d or not self.scheme.takes(self.potential):
            raise ValueError(f"potential: expected one for {self.columns} and {self.scheme}.")

    @property
    def dim(self) -> int:
        """d."""
        return self.potential.dim

    def line(self, x: Float[Array, "n d"]) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """y and log q(y) of points x of N(0, I)."""
        pushed = self.scheme.push(self.potential, x)
        log_det = pushed.log_det + jnp.linalg.slogdet(self.factor)[1]
        return self.shift + pushed.points @ self.factor.T, StandardNormal(self.dim).log_prob(
            x
        ) - log_det

    def draw(self, n: int, seed: int, density: LogDensity | None = None) -> Draws:
        """n independent draws; without `density` the weights are NaN."""
        return Draws(*self._map(_push, self._normal(n, seed), _BATCH, density))

    def draw_wide(self, n: int, seed: int, density: LogDensity) -> Draws:
        """n independent draws of a law wider than q (`otflow.flow.wide`), weighted for it."""
        with precision("float64"):
            rows = Wide.of(StandardNormal(self.dim)).draw(jax.random.key(seed), n)
            points, log_prob, log_weight = self._map(_push, np.asarray(rows.x), _BATCH, density)
            more = np.log(np.asarray(rows.weight))
        return Draws(points, log_prob - more, log_weight + more)

    def log_prob(self, theta: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log q of parameters strictly within their bounds, through the inverse of T."""
        found = self._map(_pull, self.columns.forward(theta), _BATCH)
        return found + self.columns.log_det(theta)

    def scores(self, density: LogDensity, n: int, seed: int) -> Float[np.ndarray, "n d"]:
        """grad_y (log q - log p) at n draws."""
        return self._map(_score, self._normal(n, seed), _JACOBIANS, density)

    def _normal(self, n: int, seed: int) -> Float[np.ndarray, "n d"]:
        with precision("float64"):
            return np.asarray(StandardNormal(self.dim).sample(jax.random.key(seed), n))

    def _map(
        self, function: Any, rows: np.ndarray, size: int, density: LogDensity | None = None
    ) -> Any:
        """function(law, rows, density) in batches, in the law's own precision, float64 NumPy."""
        with precision(dtype_of(self.potential)):
            found = map_rows(
                lambda part: function(self, jnp.asarray(part, float), density), rows, size
            )
        if isinstance(found, tuple):
            return tuple(np.asarray(part, np.float64) for part in found)
        return np.asarray(found, np.float64)


@eqx.filter_jit
def _push(law: PushedNormal, x: Array, density: LogDensity | None) -> tuple[Array, Array, Array]:
    y, log_prob = law.line(x)
    theta, log_det = from_line(law.columns, y)
    known = jnp.full_like(log_prob, jnp.nan) if density is None else density(theta)
    return theta, log_prob - log_det, known + log_det - log_prob


@eqx.filter_jit
def _pull(law: PushedNormal, y: Array, density: None) -> Array:
    z = jnp.linalg.solve(law.factor, (y - law.shift).T).T
    pulled = law.scheme.pull(law.potential, z)
    value = StandardNormal(law.dim).log_prob(pulled.points) + pulled.log_det
    value = value - jnp.linalg.slogdet(law.factor)[1]
    return jnp.where(pulled.valid, value, -jnp.inf)


@eqx.filter_jit
def _score(law: PushedNormal, x: Array, density: LogDensity) -> Array:
    known = OnLine(density, law.columns)

    def log_ratio(x: Array) -> Array:
        y, log_prob = law.line(x[None])
        return (log_prob - known(y))[0]

    J = jax.vmap(jax.jacrev(lambda x: law.line(x[None])[0][0]))(x)
    slope = jax.vmap(jax.grad(log_ratio))(x)
    return jnp.linalg.solve(jnp.swapaxes(J, 1, 2), slope[..., None])[..., 0]
