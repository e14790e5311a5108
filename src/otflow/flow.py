"""A flow: potential, target and scheme together, as a density and a sampler."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.potentials.base import AbstractPotential, check_points
from otflow.precision import cast, dtype_of, precision
from otflow.schemes.base import AbstractScheme, Push
from otflow.schemes.rk4 import RK4
from otflow.targets import AbstractTarget, StandardNormal


class SamplesWithLogProb(NamedTuple):
    """Draws from a flow and their log-density."""

    samples: Float[Array, "n d"]
    log_prob: Float[Array, " n"]


class LogProbWithError(NamedTuple):
    """A log-density and how far rounding or time integration may have moved it, nats."""

    log_prob: Float[Array, " n"]
    error: Float[Array, " n"]


def _in_own_precision(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method compiled, in the precision of the flow's own parameters."""
    compiled = eqx.filter_jit(method)

    @functools.wraps(method)
    def wrapped(self: "Flow", *args: Any, **kwargs: Any) -> Any:
        with precision(dtype_of(self.potential)):
            return compiled(self, *args, **kwargs)

    return wrapped


class Flow(eqx.Module):
    """The map x -> T(x) that a potential generates, with the density it gives to the data.

    forward goes from data to target. Parameters in float64 compute in float64 whatever JAX's
    global setting is. All methods work on n points at once and are compiled for their shape.

    Args:
        potential: Phi.
        target: rho1; the standard normal by default.
        scheme: the time discretisation; RK4 with 8 steps by default.

    Raises:
        ValueError: potential and target disagree on the dimension.
    """

    potential: AbstractPotential
    target: AbstractTarget
    scheme: AbstractScheme

    def __init__(
        self,
        potential: AbstractPotential,
        target: AbstractTarget | None = None,
        scheme: AbstractScheme | None = None,
    ):
        self.potential = potential
        self.target = StandardNormal(potential.dim) if target is None else target
        self.scheme = RK4() if scheme is None else scheme

    def __check_init__(self) -> None:
        if self.potential.dim != self.target.dim:
            raise ValueError(
                f"target: expected dimension {self.potential.dim}, the potential's; "
                f"got {self.target.dim}."
            )

    @property
    def dim(self) -> int:
        """d."""
        return self.potential.dim

    @_in_own_precision
    def push(self, x: Float[Array, "n d"]) -> Push:
        """T(x) with log-determinant, transport and hjb of every point."""
        return self.scheme.push(self.potential, self._points(x))

    @_in_own_precision
    def pull(self, y: Float[Array, "n d"]) -> Push:
        """The inverse of T at y with the inverse's log-determinant, and the same costs."""
        return self.scheme.pull(self.potential, self._points(y, "y"))

    def forward(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """T(x), from data to target, shape (n, d)."""
        return self.push(x).points

    def inverse(self, y: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The inverse of T, from target to data, shape (n, d)."""
        return self.pull(y).points

    @_in_own_precision
    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(T(x)) + log|det grad T(x)|, nats, shape (n,) (SPEC 1: -nll)."""
        pushed = self.push(x)
        return self.target.log_prob(pushed.points) + pushed.log_det

    def log_prob_with_error(self, x: Float[Array, "n d"]) -> LogProbWithError:
        """log_prob with an estimate of its numerical error, nats, shape (n,) each.

        The error is |log_prob(n_steps) - log_prob(2 n_steps)| for a scheme with an integration
        error. Without one it is rounding: the difference between float32 and float64, for a float64
        flow scaled down by the ratio of their precisions. 0 where both are -inf.
        """
        own = self.log_prob(x)
        refined = self.scheme.refined()
        if refined is not None:
            other, scale = Flow(self.potential, self.target, refined).log_prob(x), 1.0
        else:
            double = own.dtype == np.float64
            other = cast(self, "float32" if double else "float64").log_prob(x)
            scale = float(np.finfo(np.float64).eps / np.finfo(np.float32).eps) if double else 1.0
        with precision("float64"):
            difference = scale * jnp.abs(own.astype(float) - other.astype(float))
            return LogProbWithError(own, jnp.where(own == other, 0.0, difference).astype(own.dtype))

    @_in_own_precision
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws: the inverse flow applied to draws from the target, shape (n, d)."""
        return self.inverse(self.target.sample(key, n))

    @_in_own_precision
    def sample_and_log_prob(self, key: PRNGKeyArray, n: int) -> SamplesWithLogProb:
        """n draws and their log-density, from one pass of the inverse flow."""
        y = self.target.sample(key, n)
        pulled = self.pull(y)
        return SamplesWithLogProb(pulled.points, self.target.log_prob(y) - pulled.log_det)

    @_in_own_precision
    def trajectories(self, x: Float[Array, "n d"]) -> Float[Array, "steps+1 n d"]:
        """Positions at t = 0, 1/n_steps, ..., 1 of points that start at x."""
        return self.scheme.trajectories(self.potential, self._points(x))

    def _points(self, x: Float[Array, "n d"], name: str = "x") -> Float[Array, "n d"]:
        """x checked, in the precision of the potential's parameters."""
        return check_points(x, self.dim, name).astype(dtype_of(self.potential))
