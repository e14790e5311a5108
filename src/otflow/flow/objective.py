"""The costs of SPEC 1, kept apart, and their weighted sum."""

import abc
import dataclasses
import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.potentials.base import AbstractPotential
from otflow.schemes.base import AbstractScheme, Push
from otflow.support.precision import default_rules
from otflow.targets import AbstractTarget

TAIL = 3.0  # of a control variate: -u beyond which it goes on straight


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


class AbstractKnownStart(AbstractTarget):
    """A target `end` that is approached from a known density `start`, which its costs use."""

    start: eqx.AbstractVar[AbstractTarget]
    end: eqx.AbstractVar[AbstractTarget]

    @property
    def dim(self) -> int:
        """d."""
        return self.end.dim

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log of the density of `end`, nats, shape (n,)."""
        return self.end.log_prob(y)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws of `end`."""
        return self.end.sample(key, n)

    @abc.abstractmethod
    def miss(self, x: Float[Array, "n d"], pushed: Push) -> Float[Array, " n"]:
        """What takes the place of the nll: the mean is D(what arrives || target), nats."""


@default_rules()
def costs(
    potential: AbstractPotential,
    scheme: AbstractScheme,
    target: AbstractTarget,
    x: Float[Array, "n d"],
) -> Costs:
    """The costs of every point, shape (n,) each (SPEC 1)."""
    pushed = scheme.push(potential, x)
    if isinstance(target, AbstractKnownStart):
        missed = target.miss(x, pushed)
    else:
        missed = nll(target, pushed)
    return Costs(pushed.transport, missed, pushed.straightness, pushed.hjb)


class Controlled(AbstractKnownStart):
    """A target that flows from a known density are trained towards with less noise.

    Args:
        start: rho0.
        end: rho1.
        share: c >= 0, of the control variate exp(-u) - 1, u = log rho0 + nll, in the nll.
    """

    start: AbstractTarget
    end: AbstractTarget
    share: Float[Array, ""]

    def miss(self, x: Float[Array, "n d"], pushed: Push) -> Float[Array, " n"]:
        """nll + c (exp(-u) - 1), of the same mean: a bijection's exp(-u) averages to 1."""
        missed = nll(self.end, pushed)
        u = missed + self.start.log_prob(x)
        u = jnp.where(jnp.isfinite(u), u, 0.0)
        return missed + self.share * (kl_terms(u, TAIL) - u)


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


def normalisers(log_ratio: Float[Array, " n"]) -> Float[Array, " n"]:
    """exp(-u), of mean 1 under rho0, and 0 where u is not finite; it ends at exp(30)."""
    return jnp.where(jnp.isfinite(log_ratio), jnp.exp(-jnp.maximum(log_ratio, -30.0)), 0.0)


def variate_share(first: Float[Array, ""], second: Float[Array, ""]) -> Float[Array, ""]:
    """c = E e / E e^2 of these: scores that weigh 1 - c e, e of mean 1, are then least noisy."""
    return first / jnp.maximum(second, jnp.finfo(second.dtype).tiny)


def controlled(log_ratio: Float[Array, " n"]) -> Float[Array, " n"]:
    """u + c (exp(-u) - 1), whose mean estimates the KL too, with the c of the least variance.

    Near u = 0 it is `kl_terms`; where the ratios are wide, c goes to 0, and no point counts for
    more than it should. What is not finite stays as it is.
    """
    finite, e = jnp.isfinite(log_ratio), normalisers(log_ratio)
    count = jnp.maximum(jnp.sum(finite), 1)

    def centred(values: Array) -> Array:
        values = jnp.where(finite, values, 0.0)
        return jnp.where(finite, values - jnp.sum(values) / count, 0.0)

    spread = jnp.sum(centred(e) ** 2)
    shared = -jnp.sum(centred(e) * centred(log_ratio))
    wide = spread > 1e-12 * jnp.sum(e**2)  # beyond rounding
    c = jnp.where(wide, shared / jnp.where(wide, spread, 1.0), 1.0)
    return jnp.where(finite, log_ratio + c * (e - 1), log_ratio)
