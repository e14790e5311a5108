"""A potential whose Laplacian is estimated from random directions: to train where d is large."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
)


class EstimatedLaplacian(AbstractPotential):
    """Phi with Hutchinson's estimate of its Laplacian: the mean of e'He over probes e.

    Unbiased where E ee' = I; one product of H with a vector a probe, in the place of the m x m by
    m x (n d) product of SPEC 2. All else is exact.

    `probes[k, i]` is the k-th direction at point i.
    """

    potential: AbstractPotential
    probes: Float[Array, "k n d"]
    trainable: ClassVar[bool] = True

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self.potential.dim

    @property
    def floats_per_point(self) -> int:
        """That of the potential."""
        return self.potential.floats_per_point

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t), shape (n,)."""
        return self.potential.value(x, t)

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi), shape (n, d+1)."""
        return self.potential.gradient(x, t)

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient (n, d+1) and the Laplacian's estimate (n,)."""
        gradient, product = jax.linearize(lambda x: self.potential.gradient(x, t), x)
        estimates = [jnp.sum(e * product(e)[:, :-1], axis=1) for e in self.probes]
        return GradientLaplacian(gradient, jnp.mean(jnp.stack(estimates), axis=0))

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient (n, d+1) and Hessian (n, d, d), exact."""
        return self.potential.gradient_and_hessian(x, t)
