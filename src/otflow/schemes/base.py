"""What a scheme is: a discrete flow from t = 0 to 1 and back, with its costs."""

import abc
import numbers
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from otflow.potentials.base import AbstractPotential


class Push(eqx.Module):
    """Where n points went, and what it cost, integrated from zero in either direction of time.

    `log_det` is log|det| of the Jacobian of the map that was applied (nats); `transport` is
    int 1/2 |v|^2 dt (squared data units). `valid` is False where the map is not invertible or an
    inverse did not converge: there log_det is -inf, or the point is the best that was found.

    Two costs are 0 where trajectories are optimal, both in squared data units: `straightness`,
    int |v - (T(x) - x)|^2 dt = 2 transport - |T(x) - x|^2, and, of a scheme that follows Phi in
    continuous time, `hjb`, int |d_t Phi - 1/2 |grad Phi|^2| dt. All run over |dt|, so they are
    nonnegative on the way back too.

    Where mass grows on the way, `log_mass` is the logarithm of its factor: a density rho becomes
    rho exp(log_mass - log_det). The costs are then those of a unit of mass at t = 0.
    """

    points: Float[Array, "n d"]
    log_det: Float[Array, " n"]
    transport: Float[Array, " n"]
    straightness: Float[Array, " n"]
    valid: Bool[Array, " n"]
    hjb: Float[Array, " n"] | None = None
    log_mass: Any = None  # (n,), of a scheme along which mass grows

    def inverted(self, x: Float[Array, "n d"], valid: Bool[Array, " n"]) -> "Push":
        """This push of x, seen from its end: the way back to x, where `valid` says it was found."""
        costs = (self.transport, self.straightness, valid & self.valid, self.hjb)
        return Push(x, -self.log_det, *costs, None if self.log_mass is None else -self.log_mass)


def straightness(
    x: Float[Array, "n d"], points: Float[Array, "n d"], transport: Float[Array, " n"]
) -> Float[Array, " n"]:
    """2 transport - |T(x) - x|^2 >= 0 (SPEC 2.2): how far trajectories are from straight lines."""
    return jnp.maximum(2 * transport - jnp.sum((points - x) ** 2, axis=1), 0.0)


class AbstractScheme(eqx.Module):
    """A time discretisation of dx/dt = -grad_x Phi on [0, 1] (SPEC 3)."""

    n_steps: eqx.AbstractVar[int]
    continuous: ClassVar[bool] = False  # it follows Phi between its steps: a push has an hjb

    def takes(self, potential: AbstractPotential) -> bool:
        """Whether the potential is defined wherever the scheme looks at it."""
        return potential.n_steps is None

    def for_training(self) -> "AbstractScheme":
        """The scheme to differentiate while training; by default the scheme itself."""
        return self

    def folded(self, number: Array | int) -> "AbstractScheme":
        """The scheme with other random numbers, where it has any; by default itself."""
        return self

    def violation(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """How far each point is from where the map is safely invertible; 0 where it is."""
        return jnp.zeros(x.shape[0], x.dtype)

    def refined(self) -> "AbstractScheme | None":
        """The scheme with twice the steps where its log-determinant has an integration error."""
        return None

    @abc.abstractmethod
    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From data (t = 0) to target (t = 1)."""

    @abc.abstractmethod
    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """From target (t = 1) to data (t = 0): the inverse of push."""

    @abc.abstractmethod
    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions at t = 0, 1/n_steps, ..., 1 of points that start at x."""


MOST_STEPS = 10_000  # no accuracy is gained beyond, and a damaged file may ask for any number


def rematerialised(step: Callable, n_steps: int) -> Callable:
    """A time step that is computed again on the way back where there are many of them.

    Up to 16, what a step leaves for the way back fits in memory and costs less than computing it.
    """
    return step if n_steps <= 16 else jax.checkpoint(step)


def check_steps(n_steps: object, name: str = "n_steps") -> None:
    """Raise TypeError or ValueError unless n_steps is an integer in 1..MOST_STEPS."""
    if isinstance(n_steps, bool) or not isinstance(n_steps, numbers.Integral):
        raise TypeError(f"{name}: expected an integer >= 1; got {type(n_steps).__name__}.")
    if n_steps < 1:
        raise ValueError(f"{name}: expected an integer >= 1; got {n_steps}.")
    if int(n_steps) > MOST_STEPS:
        raise ValueError(f"{name}: expected at most {MOST_STEPS}; got {n_steps}.")
