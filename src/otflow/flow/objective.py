"""The costs of SPEC 1, kept apart, and their weighted sum."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme
from otflow.targets import AbstractTarget


class Costs(eqx.Module):
    """transport (squared data units), nll (nats), straightness and hjb, of n points or averaged.

    `transport` carries the factor 1/2, so its limit is 1/2 W2^2. `hjb` is None for a scheme that
    has none, see `otflow.schemes.Push`.
    """

    transport: Float[Array, "*n"]
    nll: Float[Array, "*n"]
    straightness: Float[Array, "*n"]
    hjb: Float[Array, "*n"] | None = None

    @staticmethod
    def nothing(scheme: AbstractScheme, dtype: Any) -> "Costs":
        """0 for every cost that the scheme has: where sums start."""
        zero = jnp.zeros((), dtype)
        return Costs(zero, zero, zero, zero if scheme.continuous else None)

    @property
    def regulariser(self) -> Float[Array, "*n"]:
        """What beta weighs: hjb where there is one, else straightness; 0 at the optimum."""
        return self.straightness if self.hjb is None else self.hjb

    def named(self) -> dict[str, Float[Array, "*n"]]:
        """The costs that there are, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def objective(self, alpha: float | Array, beta: float | Array = 0.0) -> Float[Array, "*n"]:
        """transport + alpha nll + beta regulariser: what training minimises."""
        return self.transport + alpha * self.nll + beta * self.regulariser

    def mean(self) -> "Costs":
        """The average over the points."""
        return jax.tree.map(jnp.mean, self)


def costs_at(history: dict[str, list[float]], row: int) -> dict[str, float]:
    """The validation costs that a training history has, by name, at one of its rows."""
    names = (field.name for field in dataclasses.fields(Costs))
    return {name: history[f"val_{name}"][row] for name in names if f"val_{name}" in history}


def costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Costs:
    """The costs of every point, shape (n,) each (SPEC 1)."""
    pushed = scheme.push(potential, x)
    nll = -target.log_prob(pushed.points) - pushed.log_det
    return Costs(pushed.transport, nll, pushed.straightness, pushed.hjb)
