"""The costs of SPEC 1, kept apart, and their weighted sum."""

import dataclasses
import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme, Push
from otflow.support.precision import default_rules
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


@default_rules()
def costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Costs:
    """The costs of every point, shape (n,) each (SPEC 1)."""
    pushed = scheme.push(potential, x)
    return Costs(pushed.transport, nll(target, pushed), pushed.straightness, pushed.hjb)


def nll(target: AbstractTarget, pushed: Push) -> Float[Array, " n"]:
    """-log rho1(T(x)) - log|det grad T(x)|, nats, of points that were pushed to T(x) (SPEC 1)."""
    return -target.log_prob(pushed.points) - pushed.log_det


ArrayLike = TypeVar("ArrayLike", Array, np.ndarray)


def kl_terms(log_ratio: ArrayLike, tail: float = math.inf) -> ArrayLike:
    """u - 1 + exp(-u) for u = log(rho0 / p): an estimator of KL(rho0 || p) without noise at u = 0.

    E_rho0[p / rho0] = 1, so exp(-u) - 1 is a control variate for u. Below u = -tail a straight line
    continues it, so that no batch explodes. NumPy in, NumPy out.
    """
    xp: Any = np if isinstance(log_ratio, np.ndarray) else jnp
    if tail == math.inf:
        return log_ratio - 1 + xp.exp(-log_ratio)
    near = xp.maximum(log_ratio, -tail)
    e = xp.exp(-near)
    return near - 1 + e + (1 - e) * (log_ratio - near)
