"""The potential that solves the finite-alpha problem between two Gaussians (SPEC 2.1)."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.parallel.devices import use_all_cores
from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    Points,
    Times,
    join_time,
)
from otflow.support.precision import default_rules


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
    @default_rules()
    def solve(
        mean: Float[np.ndarray, " d"],
        cov: Float[np.ndarray, "d d"],
        alpha: float,
        target_mean: Float[np.ndarray, " d"] | None = None,
        target_cov: Float[np.ndarray, "d d"] | None = None,
    ) -> "GaussianBase":
        """The closed-form minimiser of transport + alpha KL from N(mean, cov) to another Gaussian.

        With S0 = cov, S1 = target_cov the map is x -> mu1 + C (x - mean), C the inverse of

            Z = S0^(1/2) Y S0^(1/2),    alpha Y^2 + Y = S0^(-1/2) (I + alpha S1^(-1)) S0^(-1/2),

        because the minimiser satisfies Z - I = alpha (S1^(-1) - Z S0^(-1) Z). For S1 = I this is
        SPEC 2.1.

        Args:
            mean: mu0, shape (d,).
            cov: Sigma0, symmetric positive definite, shape (d, d).
            alpha: weight of the KL, finite and > 0.
            target_mean: of the other Gaussian, shape (d,); 0 by default.
            target_cov: its covariance, symmetric positive definite, (d, d); I by default.

        Raises:
            ValueError: shapes disagree, alpha is not finite and > 0, a mean is not finite, or a
                covariance is not finite, symmetric and positive definite.
        """
        if not 0 < alpha < np.inf:
            raise ValueError(f"alpha: expected a finite number > 0; got {alpha}.")
        mean, variance, basis = _checked("mean", mean, "cov", cov)
        d = mean.size
        if target_cov is None and target_mean is None:
            sig = np.sqrt(variance)
            s = (sig + np.sqrt(variance + 4 * alpha * (1 + alpha))) / (2 * (1 + alpha))
            stretch, shift = s / sig - 1, mean / (1 + alpha) - mean
        else:
            target_mean, target_variance, target_basis = _checked(
                "target_mean",
                np.zeros(d) if target_mean is None else target_mean,
                "target_cov",
                np.eye(d) if target_cov is None else target_cov,
            )
            if target_mean.size != d:
                raise ValueError(f"target_mean: expected shape {(d,)}; got {target_mean.shape}.")
            precision = (target_basis / target_variance) @ target_basis.T
            pull = np.linalg.inv(np.eye(d) + alpha * precision)
            shift = alpha * pull @ precision @ (target_mean - mean)
            basis, stretch = _map_between(variance, basis, alpha, np.eye(d) + alpha * precision)
        use_all_cores()
        return GaussianBase(
            mean=jnp.asarray(mean, float),
            basis=jnp.asarray(basis, float),
            stretch=jnp.asarray(stretch, float),
            shift=jnp.asarray(shift, float),
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


def _checked(
    mean_name: str, mean: np.ndarray, cov_name: str, cov: np.ndarray
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """The mean, and the covariance's eigenvalues and eigenvectors."""
    mean, cov = np.asarray(mean, float), np.asarray(cov, float)
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
        raise ValueError(
            f"{mean_name}, {cov_name}: expected shapes (d,) and (d, d); "
            f"got {mean.shape} and {cov.shape}."
        )
    for name, array in {mean_name: mean, cov_name: cov}.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers; got NaN or infinity.")
    asymmetry = np.abs(cov - cov.T).max()
    if asymmetry > 1e-8 * np.abs(cov).max():
        raise ValueError(f"{cov_name}: expected a symmetric matrix; got asymmetry {asymmetry:.2g}.")
    variance, basis = np.linalg.eigh(cov)
    if variance[0] <= 0:
        raise ValueError(
            f"{cov_name}: expected a positive definite matrix; got smallest eigenvalue "
            f"{variance[0]}."
        )
    return mean, variance, basis


def _map_between(
    variance: Float[np.ndarray, " d"],
    basis: Float[np.ndarray, "d d"],
    alpha: float,
    matrix: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, " d"]]:
    """Eigenvectors of C and its eigenvalues less 1; `matrix` is I + alpha S1^(-1)."""
    root, inverse_root = (basis * variance**p @ basis.T for p in (0.5, -0.5))
    n, vectors = np.linalg.eigh(inverse_root @ matrix @ inverse_root)
    y = 2 * n / (1 + np.sqrt(1 + 4 * alpha * n))  # the positive root, without cancellation
    values, axes = np.linalg.eigh(root @ (vectors * y) @ vectors.T @ root)
    return axes, 1 / values - 1
