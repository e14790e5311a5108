"""The potential that solves the finite-alpha problem between a Gaussian and N(0, I) (SPEC 2.1)."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
    join_time,
)


class GaussianBase(AbstractPotential):
    """Phi_G = -1/2 r'B(t) r - delta'x + t |delta|^2 / 2, r = x - mu0 - t delta (SPEC 2.1).

    B(t) = U diag(c_i / (1 + t c_i)) U' with U the columns of `basis`. It satisfies the
    Hamilton-Jacobi-Bellman equation exactly, so its trajectories are straight. Never trained.
    Under a condition (see `ConditionalGaussian`) mean and shift have one row a point, (n, d).
    """

    mean: Float[Array, " d"]
    basis: Float[Array, "d d"]
    stretch: Float[Array, " d"]  # c_i = s_i / sig_i - 1
    shift: Float[Array, " d"]  # delta = mu1 - mu0
    trainable: ClassVar[bool] = False

    @staticmethod
    def solve(
        mean: Float[np.ndarray, " d"], cov: Float[np.ndarray, "d d"], alpha: float
    ) -> "GaussianBase":
        """The closed-form minimiser of transport + alpha KL from N(mean, cov) to N(0, I).

        Args:
            mean: mu0, shape (d,).
            cov: Sigma0, symmetric positive definite, shape (d, d).
            alpha: weight of the KL, finite and > 0.

        Raises:
            ValueError: shapes disagree, alpha is not finite and > 0, mean is not finite, or cov is
                not finite, symmetric and positive definite.
        """
        mean, cov = np.asarray(mean, float), np.asarray(cov, float)
        if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
            raise ValueError(
                f"mean, cov: expected shapes (d,) and (d, d); got {mean.shape} and {cov.shape}."
            )
        if not 0 < alpha < np.inf:
            raise ValueError(f"alpha: expected a finite number > 0; got {alpha}.")
        for name, array in {"mean": mean, "cov": cov}.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers; got NaN or infinity.")
        asymmetry = np.abs(cov - cov.T).max()
        if asymmetry > 1e-8 * np.abs(cov).max():
            raise ValueError(f"cov: expected a symmetric matrix; got asymmetry {asymmetry:.2g}.")
        variance, basis = np.linalg.eigh(cov)
        if variance[0] <= 0:
            raise ValueError(
                f"cov: expected a positive definite matrix; got smallest eigenvalue {variance[0]}."
            )
        sig = np.sqrt(variance)
        s = (sig + np.sqrt(variance + 4 * alpha * (1 + alpha))) / (2 * (1 + alpha))
        return GaussianBase(
            mean=jnp.asarray(mean, float),
            basis=jnp.asarray(basis, float),
            stretch=jnp.asarray(s / sig - 1, float),
            shift=jnp.asarray(mean / (1 + alpha) - mean, float),
        )

    @property
    def dim(self) -> int:
        """d, the dimension of x."""
        return self.basis.shape[0]

    def value(self, x: Points, t: Times) -> Float[Array, " n"]:
        """Phi(x, t), shape (n,)."""
        x, t = self._split(x, t)
        p = self._residual(x, t)
        quadratic = jnp.sum(self._rate(t) * p * p, axis=1)
        speed = jnp.sum(self.shift**2, axis=-1)
        return -0.5 * quadratic - jnp.sum(x * self.shift, axis=1) + 0.5 * t[:, 0] * speed

    def gradient(self, x: Points, t: Times) -> Float[Array, "n d+1"]:
        """(grad_x Phi, d_t Phi); the HJB equation gives d_t Phi = |grad_x Phi|^2 / 2."""
        x, t = self._split(x, t)
        velocity = (self._rate(t) * self._residual(x, t)) @ self.basis.T + self.shift
        speed = jnp.sum(velocity**2, axis=1, keepdims=True)
        return jnp.concatenate([-velocity, 0.5 * speed], axis=1)

    def gradient_and_laplacian(self, x: Points, t: Times) -> GradientLaplacian:
        """Gradient (n, d+1) and Laplacian -tr B(t), shape (n,)."""
        _, times = self._split(x, t)
        return GradientLaplacian(self.gradient(x, t), -jnp.sum(self._rate(times), axis=1))

    def gradient_and_hessian(self, x: Points, t: Times) -> GradientHessian:
        """Gradient (n, d+1) and Hessian -B(t), shape (n, d, d)."""
        _, times = self._split(x, t)
        scaled = self._rate(times)[:, None, :] * self.basis
        return GradientHessian(self.gradient(x, t), -scaled @ self.basis.T)

    def _split(self, x: Points, t: Times) -> tuple[Points, Float[Array, "n 1"]]:
        s = join_time(x, t, self.dim)
        return s[:, :-1], s[:, -1:]

    def _rate(self, t: Float[Array, "n 1"]) -> Float[Array, "n d"]:
        return self.stretch / (1 + t * self.stretch)

    def _residual(self, x: Points, t: Float[Array, "n 1"]) -> Points:
        """r in the eigenbasis."""
        return (x - self.mean - t * self.shift) @ self.basis
