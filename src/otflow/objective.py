"""The three costs of SPEC 1, kept apart, and their weighted sum."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget


class Costs(eqx.Module):
    """transport (squared data units), nll (nats) and hjb, of n points or averaged.

    `transport` carries the factor 1/2, so its limit is 1/2 W2^2.
    """

    transport: Float[Array, "*n"]
    nll: Float[Array, "*n"]
    hjb: Float[Array, "*n"]

    def objective(self, alpha: float | Array, beta: float | Array = 0.0) -> Float[Array, "*n"]:
        """transport + alpha nll + beta hjb: what training minimises."""
        return self.transport + alpha * self.nll + beta * self.hjb

    def mean(self) -> "Costs":
        """The average over the points."""
        return jax.tree.map(jnp.mean, self)


def costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Costs:
    """The three costs of every point, shape (n,) each (SPEC 1)."""
    pushed = scheme.push(potential, x)
    nll = -target.log_prob(pushed.points) - pushed.log_det
    return Costs(pushed.transport, nll, pushed.hjb)
