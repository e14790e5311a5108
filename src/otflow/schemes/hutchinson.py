"""RK4 with Hutchinson's estimate of the trace: for training only, where d is large."""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float

from otflow.potentials.base import AbstractPotential
from otflow.potentials.estimated import EstimatedLaplacian
from otflow.schemes.base import AbstractScheme, Push, check_steps
from otflow.schemes.rk4 import RK4


class HutchinsonRK4(AbstractScheme):
    """`RK4` whose log-determinant is an unbiased estimate, from directions of +-1 fixed in time.

    The nll of a point has an error of mean 0, so the gradient of the objective is unbiased; its
    variance falls like 1 / n_probes. Never for scoring: use `RK4`.
    """

    continuous: ClassVar[bool] = True

    n_steps: int = eqx.field(static=True)
    n_probes: int = eqx.field(static=True)
    key: Any  # a JAX PRNG key

    def __check_init__(self) -> None:
        check_steps(self.n_steps)
        check_steps(self.n_probes, "n_probes")

    def folded(self, number: Array | int) -> "HutchinsonRK4":
        """The same with other directions, by a number: of a step, a device, a chunk."""
        key = jax.random.fold_in(self.key, number)
        return HutchinsonRK4(key=key, n_steps=self.n_steps, n_probes=self.n_probes)

    def push(self, potential: AbstractPotential, x: Float[Array, "n d"]) -> Push:
        """From t = 0 to t = 1."""
        probes = jax.random.rademacher(self.key, (self.n_probes, *x.shape), x.dtype)
        return RK4(self.n_steps).push(EstimatedLaplacian(potential, probes), x)

    def pull(self, potential: AbstractPotential, y: Float[Array, "n d"]) -> Push:
        """From t = 1 to t = 0, exactly as RK4."""
        return RK4(self.n_steps).pull(potential, y)

    def trajectories(
        self, potential: AbstractPotential, x: Float[Array, "n d"]
    ) -> Float[Array, "steps+1 n d"]:
        """Positions at the ends of the steps."""
        return RK4(self.n_steps).trajectories(potential, x)
