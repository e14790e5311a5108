"""A flow's own density as the target of another flow."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.flow.flow import Flow
from otflow.potentials.base import check_points
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
        for name, shape in {"shift": (d,), "scale": (d,), "mean": (d,), "cov": (d, d)}.items():
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(f"{name}: expected shape {shape}; got {got}.")

    @property
    def dim(self) -> int:
        """d."""
        return self.flow.dim

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(y), shape (n,)."""
        z = (check_points(y, self.dim, "y") - self.shift) / self.scale
        pushed = self.flow.scheme.for_training().push(self.flow.potential, z)
        log_det = pushed.log_det - jnp.sum(jnp.log(self.scale))
        return self.flow.target.log_prob(pushed.points) + log_det

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws, shape (n, d)."""
        return self.shift + self.scale * self.flow.sample(key, n)

    def moments(self) -> Moments:
        """Those it was given: of the rows that the flow was fitted to."""
        return Moments(np.asarray(self.mean, np.float64), np.asarray(self.cov, np.float64))
