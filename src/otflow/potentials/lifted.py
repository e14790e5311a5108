"""Stages and a number for each: the level of Phi, which decides how mass grows."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from otflow.potentials.base import AbstractStages, EulerStep, Points, Times


class LiftedStages(AbstractStages):
    """The stages of `stages` with u_k less level_k: the same steps, Phi higher by K level_k."""

    stages: AbstractStages
    level: Float[Array, " K"]

    def __check_init__(self) -> None:
        if self.level.shape != (self.stages.n_steps,):
            expected = f"shape ({self.stages.n_steps},), a number a stage"
            raise ValueError(f"level: expected {expected}; got {self.level.shape}.")

    @property
    def dim(self) -> int:
        """d."""
        return self.stages.dim

    @property
    def n_steps(self) -> int:
        """K."""
        return self.stages.n_steps

    @property
    def floats_per_point(self) -> int:
        """Those of the stages."""
        return self.stages.floats_per_point

    def convex_value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """u_k(x) - level_k."""
        k = jnp.clip(
            jnp.round(jnp.asarray(t) * self.n_steps).astype(jnp.int32), 0, self.n_steps - 1
        )
        return self.stages.convex_value(x, t) - self.level[k]

    def image(self, x: Points, t: Times) -> Float[Array, "n d"]:
        """grad u_k(x)."""
        return self.stages.image(x, t)

    def step(self, x: Points, t: Times) -> EulerStep:
        """grad u_k(x) and its Jacobian."""
        return self.stages.step(x, t)

    def of_points(self, index: Int[Array, " k"]) -> "LiftedStages":
        """Those of some of the points."""
        return LiftedStages(self.stages.of_points(index), self.level)
