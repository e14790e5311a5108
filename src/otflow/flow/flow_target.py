"""A flow's own density, conditional or not, as the target of another flow."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.flow.flow import Flow
from otflow.potentials.base import AbstractPotential, check_points
from otflow.support.checks import check_shapes
from otflow.targets import AbstractTarget, Moments


class FlowTarget(AbstractTarget):
    """The density of y = shift + scale z, z from a flow.

    Where the flow's map folds, its log-density goes on steeply downwards, as in training, so that a
    flow towards this target can be trained through such points; nothing is drawn there.
    """

    flow: Flow
    shift: Float[Array, " d"]
    scale: Float[Array, " d"]
    mean: Float[Array, " d"]
    cov: Float[Array, "d d"]

    def __check_init__(self) -> None:
        d = self.flow.dim
        if self.flow.condition_dim:
            raise ValueError("flow: expected an unconditional flow; take flow.given(condition).")
        check_shapes(self, {"shift": (d,), "scale": (d,), "mean": (d,), "cov": (d, d)})

    @property
    def dim(self) -> int:
        """d."""
        return self.flow.dim

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(y), shape (n,)."""
        return _log_prob(self, self.flow.potential, y)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws, shape (n, d)."""
        return self.shift + self.scale * self.flow.sample(key, n)

    def moments(self) -> Moments:
        """Those it was given: of the rows that the flow was fitted to."""
        return Moments(np.asarray(self.mean, np.float64), np.asarray(self.cov, np.float64))


class ConditionalFlowTarget(AbstractTarget):
    """The density of y = shift + scale z, z from a conditional flow under offset + rate c.

    It has values once it is `given` a condition. Folds are treated as in `FlowTarget`.

    Attributes:
        flow: the conditional flow.
        shift, scale: of its rows.
        offset, rate: from c to the condition as the flow knows it.
        mean, cov: of y at c = 0; the mean moves by gain c. Of the rows it was fitted to, by least
            squares.
        gain: see mean.
        condition: of n points, where it was given; None before.
    """

    flow: Flow
    shift: Float[Array, " d"]
    scale: Float[Array, " d"]
    offset: Float[Array, " k"]
    rate: Float[Array, " k"]
    mean: Float[Array, " d"]
    cov: Float[Array, "d d"]
    gain: Float[Array, "d k"]
    condition: Float[Array, "n k"] | None = None

    def __check_init__(self) -> None:
        d, k = self.flow.dim, self.flow.condition_dim
        if not k:
            raise ValueError("flow: expected a conditional flow; got an unconditional one.")
        shapes = {"shift": (d,), "scale": (d,), "offset": (k,), "rate": (k,)}
        check_shapes(self, shapes | {"mean": (d,), "cov": (d, d), "gain": (d, k)})

    @property
    def dim(self) -> int:
        """d."""
        return self.flow.dim

    @property
    def condition_dim(self) -> int:
        """k; 0 where the condition was given."""
        return self.flow.condition_dim if self.condition is None else 0

    def given(self, condition: Array | None) -> AbstractTarget:
        """The density under a condition: of n points, (n, k), or of any, (k,).

        Raises:
            ValueError: none, or another shape.
        """
        k = self.flow.condition_dim
        if condition is None or condition.ndim not in (1, 2) or condition.shape[-1] != k:
            got = "none" if condition is None else condition.shape
            raise ValueError(f"condition: expected shape (n, {k}) or ({k},); got {got}.")
        own = self.offset + self.rate * condition
        if own.ndim == 2:
            return dataclasses.replace(self, condition=own)
        mean = self.mean + self.gain @ condition
        return FlowTarget(self.flow.given(own), self.shift, self.scale, mean, self.cov)

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(y | c), every point under its own condition, shape (n,)."""
        return _log_prob(self, self.flow.potential.given(self.condition), y)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """A draw for each of the n conditions, shape (n, d)."""
        return self.shift + self.scale * self.flow.sample(key, n, self.condition)

    def moments(self) -> Moments:
        """At c = 0, of the least-squares regression of the flow's rows on c."""
        return Moments(np.asarray(self.mean, np.float64), np.asarray(self.cov, np.float64))

    @property
    def slope(self) -> Float[np.ndarray, "d k"]:
        """The gain: that of the regression."""
        return np.asarray(self.gain, np.float64)


def _log_prob(
    target: FlowTarget | ConditionalFlowTarget,
    potential: AbstractPotential,
    y: Float[Array, "n d"],
) -> Float[Array, " n"]:
    """Of the flow's density, with this potential of its, at y = shift + scale z."""
    z = (check_points(y, target.dim, "y") - target.shift) / target.scale
    pushed = target.flow.scheme.for_training().push(potential, z)
    log_det = pushed.log_det - jnp.sum(jnp.log(target.scale))
    return target.flow.target.log_prob(pushed.points) + log_det
