"""A flow: potential, target and scheme together, as a density and a sampler."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.flow.objective import nll
from otflow.parallel.devices import map_chunks, one_lapack_thread
from otflow.potentials.base import AbstractPotential, check_points, chunk_size
from otflow.schemes.base import AbstractScheme, Push
from otflow.schemes.conforming import Conforming
from otflow.schemes.growing import Growing
from otflow.support.compiling import within_jax
from otflow.support.memory import check_fits
from otflow.support.precision import cast, dtype_of, own_precision, precision
from otflow.targets import AbstractTarget, StandardNormal

Condition = Float[Array, "n k"] | Float[Array, " k"] | None  # None for an unconditional flow


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
        with own_precision(self.potential, (self, args, kwargs)):
            return compiled(self, *args, **kwargs)

    return wrapped


def _by_rows(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method of (points, condition) compiled, in chunks on all devices, in its precision.

    Within another compiled function it is a part of that instead.
    """
    signature = inspect.signature(method)
    name = list(signature.parameters)[1]

    @functools.wraps(method)
    def wrapped(self: "Flow", *args: Any, **kwargs: Any) -> Any:
        _, x, *rest = signature.bind(self, *args, **kwargs).args
        with own_precision(self.potential, (self, x, rest)):
            x = self._points(x, name)
            condition = self._conditions(rest[0] if rest else None, x.shape[0])
            if within_jax((self, x, condition)):
                return method(self, x, condition)
            if condition is not None:
                condition = jnp.broadcast_to(condition, (x.shape[0], self.condition_dim))
            with one_lapack_thread():
                return map_chunks(method, self, (x, condition), chunk_size(self.potential))

    return wrapped


class Flow(eqx.Module):
    """The map x -> T(x) that a potential generates, with the density it gives to the data.

    forward goes from data to target. Parameters in float64 compute in float64 whatever JAX's
    global setting is, and within a transformation that lacks it raise ValueError. Derivatives,
    those of the inverse too, exist in both modes, and are 0 at points that are not valid. All
    methods work on n points at once and are compiled for their shape. A conditional flow
    (`condition_dim` k > 0) needs a condition in each of them: (n, k), a row a point, or (k,), one
    for all points; any other shape, or one too many, is a ValueError.

    Args:
        potential: Phi.
        target: rho1; the standard normal by default.
        scheme: the time discretisation; by default the conforming one with as many steps as the
            potential has stages, and 4 for a potential of any time.

    Raises:
        ValueError: potential and target disagree on the dimension, or potential and scheme on the
            steps; or mass grows on the way (`GrowingFlow`).
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
        steps = potential.n_steps
        own = Conforming() if steps is None else Conforming(steps)
        self.scheme = own if scheme is None else scheme

    def __check_init__(self) -> None:
        if self.potential.dim != self.target.dim:
            raise ValueError(
                f"target: expected dimension {self.potential.dim}, the potential's; "
                f"got {self.target.dim}."
            )
        if self.target.condition_dim not in (0, self.condition_dim):
            raise ValueError(
                f"target: expected a condition of {self.condition_dim} columns, as the potential "
                f"takes; got {self.target.condition_dim}."
            )
        if isinstance(self.scheme, Growing):
            raise ValueError("scheme: expected one that keeps mass; got Growing, of GrowingFlow.")
        if not self.scheme.takes(self.potential):
            raise ValueError(
                f"scheme: expected Conforming({self.potential.n_steps}), which the potential is "
                f"made for; got {self.scheme}."
            )

    @property
    def dim(self) -> int:
        """d."""
        return self.potential.dim

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition; 0 for an unconditional flow."""
        return self.potential.condition_dim

    def given(self, condition: Float[Array, " k"]) -> "Flow":
        """The unconditional flow under one condition.

        Raises:
            ValueError: the flow is unconditional, or the shape is not (k,).
        """
        with own_precision(self.potential, (self, condition)):
            c = self._conditions(condition, None)
            return Flow(self.potential.given(c), self.target.given(c), self.scheme)

    @_by_rows
    def push(self, x: Float[Array, "n d"], condition: Condition = None) -> Push:
        """T(x) with log-determinant, transport and straightness of every point."""
        x = self._points(x)
        return self.scheme.push(self._given(condition, x.shape[0]), x)

    @_by_rows
    def pull(self, y: Float[Array, "n d"], condition: Condition = None) -> Push:
        """The inverse of T at y with the inverse's log-determinant, and the same costs."""
        y = self._points(y, "y")
        return self.scheme.pull(self._given(condition, y.shape[0]), y)

    @_by_rows
    def forward(self, x: Float[Array, "n d"], condition: Condition = None) -> Float[Array, "n d"]:
        """T(x), from data to target, shape (n, d)."""
        return self.push(x, condition).points

    @_by_rows
    def inverse(self, y: Float[Array, "n d"], condition: Condition = None) -> Float[Array, "n d"]:
        """The inverse of T, from target to data, shape (n, d)."""
        return self.pull(y, condition).points

    @_by_rows
    def log_prob(self, x: Float[Array, "n d"], condition: Condition = None) -> Float[Array, " n"]:
        """log rho1(T(x)) + log|det grad T(x)|, nats, shape (n,) (SPEC 1: -nll).

        -inf where x lies so far out that T(x) overflows.
        """
        x = self._points(x)
        pushed = self.push(x, condition)
        value = -nll(self.target.given(self._conditions(condition, x.shape[0])), pushed)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_prob_with_error(
        self, x: Float[Array, "n d"], condition: Condition = None
    ) -> LogProbWithError:
        """log_prob with an estimate of its numerical error, nats, shape (n,) each.

        The error is |log_prob(n_steps) - log_prob(2 n_steps)| for a scheme with an integration
        error. Without one it is rounding: the difference between float32 and float64, for a float64
        flow scaled down by the ratio of their precisions. 0 where both are -inf.
        """
        own = self.log_prob(x, condition)
        refined = self.scheme.refined()
        if refined is not None:
            flow, scale = Flow(self.potential, self.target, refined), 1.0
        else:
            double = own.dtype == np.float64
            flow = cast(self, "float32" if double else "float64")
            scale = float(np.finfo(np.float64).eps / np.finfo(np.float32).eps) if double else 1.0
        other = flow.log_prob(x, condition)
        with precision("float64"):
            difference = scale * jnp.abs(own.astype(float) - other.astype(float))
            return LogProbWithError(own, jnp.where(own == other, 0.0, difference).astype(own.dtype))

    def sample(self, key: PRNGKeyArray, n: int, condition: Condition = None) -> Float[Array, "n d"]:
        """n draws: the inverse flow applied to draws from the target, shape (n, d)."""
        return self.inverse(self._draw(key, n, condition), condition)

    def sample_and_log_prob(
        self, key: PRNGKeyArray, n: int, condition: Condition = None
    ) -> SamplesWithLogProb:
        """n draws and their log-density, from one pass of the inverse flow."""
        with own_precision(self.potential, (self, key, condition)):
            y = self._draw(key, n, condition)
            pulled = self.pull(y, condition)
            log_prob = self.target.given(self._conditions(condition, n)).log_prob(y)
            log_prob = log_prob - pulled.log_det
        return SamplesWithLogProb(pulled.points, log_prob)

    @_in_own_precision
    def _draw(self, key: PRNGKeyArray, n: int, condition: Condition) -> Float[Array, "n d"]:
        check_fits("n", n, self.dim)
        return self.target.given(self._conditions(condition, n)).sample(key, n)

    @_in_own_precision
    def trajectories(
        self, x: Float[Array, "n d"], condition: Condition = None
    ) -> Float[Array, "steps+1 n d"]:
        """Positions at t = 0, 1/n_steps, ..., 1 of points that start at x."""
        x = self._points(x)
        return self.scheme.trajectories(self._given(condition, x.shape[0]), x)

    def _points(self, x: Float[Array, "n d"], name: str = "x") -> Float[Array, "n d"]:
        """x checked, in the precision of the potential's parameters."""
        return check_points(x, self.dim, name).astype(dtype_of(self.potential))

    def _given(self, condition: Condition, n: int | None) -> AbstractPotential:
        """The potential under a condition for n points; n None: for any number of them."""
        found = self._conditions(condition, n)
        return self.potential if found is None else self.potential.given(found)

    def _conditions(self, condition: Condition, n: int | None) -> Condition:
        """The condition checked, in the precision of the potential's parameters."""
        if condition is None and not self.condition_dim:
            return None
        if condition is None:
            raise ValueError(f"condition: expected {self._shapes(n)}; got none.")
        c = jnp.asarray(condition).astype(dtype_of(self.potential))
        if not self.condition_dim:
            raise ValueError(f"condition: expected none, the flow takes none; got shape {c.shape}.")
        allowed = [(self.condition_dim,)] + ([] if n is None else [(n, self.condition_dim)])
        if c.shape not in allowed:
            raise ValueError(f"condition: expected {self._shapes(n)}; got shape {c.shape}.")
        return c

    def _shapes(self, n: int | None) -> str:
        k = self.condition_dim
        return f"shape ({k},)" if n is None else f"shape ({n}, {k}) or ({k},)"
