"""The closed form for a normal density: SPEC 2.1 and 4."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from otflow.reference.base import AbstractReference
from otflow.reference.numerics import log_excess
from otflow.support.checks import check_alpha, check_array, check_points


@final
@dataclass(frozen=True, eq=False)
class GaussianReference(AbstractReference):
    """The exact answer for rho0 = N(mean, U diag(sig^2) U'); see `gaussian`.

    Beyond the common fields: mean (d,), axes U (d, d) with the principal axes as columns, stds sig
    (d,), and the optimal push-forward N(mapped_mean, U diag(mapped_stds^2) U').
    """

    alpha: float
    transport: float
    kl: float
    half_w2_squared: float
    entropy: float
    rate_constant: float
    dim: int
    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d d"]
    stds: Float[np.ndarray, " d"]
    mapped_mean: Float[np.ndarray, " d"]
    mapped_stds: Float[np.ndarray, " d"]

    def map(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """T(x) = mu1 + U diag(s/sig) U'(x - mu0), affine; x and result (n, d)."""
        z = (check_points("x", x, self.dim) - self.mean) @ self.axes
        return self.mapped_mean + (z * (self.mapped_stds / self.stds)) @ self.axes.T

    def from_scores(self, scores: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """mean + U diag(sig) scores, (n, d) -> (n, d)."""
        return self.mean + (scores * self.stds) @ self.axes.T

    def log_prob(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log N(x; mean, cov) in nats, (n,)."""
        z = ((check_points("x", x, self.dim) - self.mean) @ self.axes) / self.stds
        constant = np.sum(np.log(self.stds)) + 0.5 * self.dim * math.log(2 * math.pi)
        return -0.5 * np.sum(z * z, axis=1) - constant

    def psi(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """1/2 y'(I - cov^(1/2))y - mean'y, less its mean under N(0, I); (n, d) -> (n,)."""
        points = check_points("y", y, self.dim)
        curvature = 1.0 - self.stds
        z = points @ self.axes
        return 0.5 * (z * z - 1.0) @ curvature - points @ self.mean


def gaussian(mean: Any, cov: Any, alpha: Any) -> GaussianReference:
    """The exact minimiser of J_alpha for rho0 = N(mean, cov) and the target N(0, I).

    Arguments:
        mean: (d,) mean of rho0, data units.
        cov: (d, d) symmetric positive definite covariance.
        alpha: penalty weight > 0; math.inf gives the Bures map and 1/2 W2^2.

    Returns a `GaussianReference`. In the principal axes each s_i solves
    (1+alpha) s^2 - sig s - alpha = 0; its distance w = s - 1 to the target is computed without
    cancellation and KL = sum(w^2/2 + w - log(1+w)) + 1/2 |mu1|^2, term by term non-negative.

    Raises ValueError or TypeError when an argument has the wrong shape, type or range.
    Source: SPEC 2.1 and 4; rate constant 1/4 sum (1-sig)^2 + 1/2 |mean|^2, from
    psi(y) = 1/2 y'(I - cov^(1/2))y - mean'y.
    """
    alpha = check_alpha(alpha)
    mu0 = check_array("mean", mean, (None,))
    sig, axes = _principal_axes(check_array("cov", cov, (mu0.size, mu0.size)))
    w = _std_excess(sig, alpha)
    shrink = 0.0 if math.isinf(alpha) else 1.0 / (1.0 + alpha)
    s, mu1 = 1.0 + w, mu0 * shrink
    # mu1 - mu0 = -alpha/(1+alpha) mu0, written so that a small alpha loses no digits
    moved = mu0 if math.isinf(alpha) else mu0 * (alpha * shrink)
    return GaussianReference(
        alpha=alpha,
        transport=float(0.5 * np.sum((s - sig) ** 2) + 0.5 * np.sum(moved**2)),
        kl=float(np.sum(0.5 * w**2 + log_excess(w)) + 0.5 * np.sum(mu1**2)),
        half_w2_squared=float(0.5 * np.sum((1.0 - sig) ** 2) + 0.5 * np.sum(mu0**2)),
        entropy=float(np.sum(np.log(sig)) + 0.5 * mu0.size * math.log(2 * math.pi * math.e)),
        rate_constant=float(0.25 * np.sum((1.0 - sig) ** 2) + 0.5 * np.sum(mu0**2)),
        dim=mu0.size,
        mean=mu0,
        axes=axes,
        stds=sig,
        mapped_mean=mu1,
        mapped_stds=s,
    )


def _std_excess(sig: Float[np.ndarray, " d"], alpha: float) -> Float[np.ndarray, " d"]:
    """w = s - 1, the root of (1+alpha) w^2 + (2(1+alpha) - sig) w + (1 - sig) = 0 with w > -1."""
    if math.isinf(alpha):
        return np.zeros_like(sig)
    b = 2.0 * (1.0 + alpha) - sig
    root = np.sqrt(sig**2 + 4.0 * alpha * (1.0 + alpha))
    stable = 2.0 * (sig - 1.0) / np.where(b > 0, b + root, 1.0)
    return np.where(b > 0, stable, (root - b) / (2.0 * (1.0 + alpha)))


def _principal_axes(
    cov: Float[np.ndarray, "d d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    asymmetry = float(np.max(np.abs(cov - cov.T)))
    if asymmetry > 1e-10 * float(np.max(np.abs(cov))):
        raise ValueError(f"Expected cov to be symmetric; got a largest asymmetry of {asymmetry!r}.")
    variances, axes = np.linalg.eigh(0.5 * (cov + cov.T))
    floor = cov.shape[0] * np.finfo(float).eps * float(np.max(np.abs(variances)))
    if variances[0] <= floor:
        raise ValueError(
            f"Expected cov to be positive definite; got a smallest eigenvalue of {variances[0]!r}."
        )
    return np.sqrt(variances), axes
