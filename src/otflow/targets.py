"""Where the flow ends: target densities with a known log-density."""

import abc
import math
import numbers
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from otflow.parallel.devices import use_all_cores
from otflow.potentials.base import check_points
from otflow.support.memory import check_fits
from otflow.support.precision import default_rules, precision


class Moments(NamedTuple):
    """Mean and covariance of a density, float64."""

    mean: Float[np.ndarray, " d"]
    cov: Float[np.ndarray, "d d"]


class AbstractTarget(eqx.Module):
    """A density rho1 on R^d that can be evaluated and sampled."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """d."""

    @abc.abstractmethod
    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(y), nats, shape (n,)."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n independent draws, shape (n, d)."""

    @property
    def condition_dim(self) -> int:
        """k, columns of the condition; 0 for a density that takes none."""
        return 0

    def given(self, condition: Array | None) -> "AbstractTarget":
        """The density under a condition: one row a point, (n, k), or one for all points, (k,).

        Itself where it takes none.
        """
        return self

    def moments(self) -> Moments | None:
        """Mean and covariance; None where they are not known, and then no Gaussian base is.

        Under a condition of 0, where it takes one; the mean moves by `slope` then.
        """
        return None

    @property
    def slope(self) -> Float[np.ndarray, "d k"] | None:
        """The derivative of the mean in the condition; None where it takes none."""
        return None

    def merged(self, share: float) -> "AbstractTarget":
        """The density, its components drawn together by `share` of the way; itself by default.

        The target while training is young: gradients of log rho1 do not carry mass over the gap
        between two components.
        """
        return self


class StandardNormal(AbstractTarget):
    """N(0, I) on R^d."""

    _dim: int = eqx.field(static=True)

    def __init__(self, dim: int):
        """The standard normal on R^dim.

        Raises:
            TypeError, ValueError: dim is not an integer >= 1.
        """
        if isinstance(dim, bool) or not isinstance(dim, numbers.Integral):
            raise TypeError(f"dim: expected an integer >= 1; got {type(dim).__name__}.")
        if dim < 1:
            raise ValueError(f"dim: expected an integer >= 1; got {dim}.")
        self._dim = int(dim)

    @property
    def dim(self) -> int:
        """d."""
        return self._dim

    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """-|y|^2 / 2 - d/2 log(2 pi), shape (n,)."""
        y = check_points(y, self.dim, "y")
        return -0.5 * jnp.sum(y * y, axis=1) - 0.5 * self.dim * math.log(2 * math.pi)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws, shape (n, d); MemoryError where they do not fit."""
        check_fits("n", n, self.dim)
        return jax.random.normal(key, (n, self.dim))

    def moments(self) -> Moments:
        """0 and I."""
        return Moments(np.zeros(self.dim), np.eye(self.dim))


class GaussianMixture(AbstractTarget):
    """sum_k weights_k N(means_k, covs_k) on R^d.

    `factors[k]` is the lower Cholesky factor of covs_k; `whiteners[k]` its inverse.
    """

    log_weights: Float[Array, " k"]
    means: Float[Array, "k d"]
    factors: Float[Array, "k d d"]
    whiteners: Float[Array, "k d d"]

    @default_rules()
    def __init__(
        self,
        weights: Float[np.ndarray, " k"],
        means: Float[np.ndarray, "k d"],
        covs: Float[np.ndarray, "k d d"],
    ):
        """Check, factorise in float64 and store in JAX's default precision.

        Args:
            weights: positive, summing to 1 (to 1e-6; renormalised), shape (k,).
            means: shape (k, d).
            covs: symmetric positive definite, shape (k, d, d).

        Raises:
            ValueError: shapes disagree, weights are not a distribution, a covariance is not
                symmetric positive definite, or a number is not finite.
        """
        weights, means, covs = (np.asarray(a, np.float64) for a in (weights, means, covs))
        _check_mixture(weights, means, covs)
        factors = np.linalg.cholesky(covs)
        use_all_cores()
        self.log_weights = jnp.asarray(np.log(weights / weights.sum()), float)
        self.means = jnp.asarray(means, float)
        self.factors = jnp.asarray(factors, float)
        self.whiteners = jnp.asarray(np.linalg.inv(factors), float)

    @property
    def dim(self) -> int:
        """d."""
        return self.means.shape[1]

    @default_rules()
    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """log rho1(y), shape (n,)."""
        y = check_points(y, self.dim, "y")
        r = jnp.einsum("kde,nke->nkd", self.whiteners, y[:, None, :] - self.means)
        log_dets = jnp.sum(jnp.log(jnp.diagonal(self.whiteners, axis1=1, axis2=2)), axis=1)
        exponents = self.log_weights + log_dets - 0.5 * jnp.sum(r * r, axis=2)
        return logsumexp(exponents, axis=1) - 0.5 * self.dim * math.log(2 * math.pi)

    @default_rules()
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws, shape (n, d); MemoryError where they do not fit."""
        check_fits("n", n, self.dim)
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, self.log_weights, shape=(n,))
        noise = jax.random.normal(key_noise, (n, self.dim))
        return self.means[component] + jnp.einsum("nde,ne->nd", self.factors[component], noise)

    def moments(self) -> Moments:
        """Mean, and the components' mean covariance plus the covariance of their means."""
        weights, means, factors = self._parts()
        mean = weights @ means
        within = np.einsum("k,kde,kfe->df", weights, factors, factors)
        return Moments(mean, within + (weights * (means - mean).T) @ (means - mean))

    def merged(self, share: float) -> "GaussianMixture":
        """Between the Gaussian of its moments (share 1) and itself (0), with those moments.

        The means' distances to their mean shrink by sqrt(1 - share), and the covariances are
        those of the components and of the whole, mixed by share.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"share: expected a number in [0, 1]; got {share}.")
        weights, means, factors = self._parts()
        whole = self.moments()
        centres = whole.mean + math.sqrt(1 - share) * (means - whole.mean)
        covs = (1 - share) * factors @ factors.transpose(0, 2, 1) + share * whole.cov
        with precision(self.means.dtype):
            return GaussianMixture(weights, centres, covs)

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights that sum to 1, means and factors, float64."""
        log_weights, means, factors = (
            np.asarray(a, np.float64) for a in (self.log_weights, self.means, self.factors)
        )
        weights = np.exp(log_weights)
        return weights / weights.sum(), means, factors


class RotatedProduct(AbstractTarget):
    """x = rotation z with independent z_i, each a one-dimensional Gaussian mixture.

    The density of `otflow.reference.product`, for use inside JAX: non-Gaussian in any dimension,
    with everything about its transport to N(0, I) known exactly.
    """

    log_weights: Float[Array, "d k"]
    means: Float[Array, "d k"]
    stds: Float[Array, "d k"]
    rotation: Float[Array, "d d"]

    @default_rules()
    def __init__(
        self,
        weights: Float[np.ndarray, "d k"],
        means: Float[np.ndarray, "d k"],
        stds: Float[np.ndarray, "d k"],
        rotation: Float[np.ndarray, "d d"],
    ):
        """Check and store in JAX's default precision.

        Args:
            weights: of each coordinate's mixture; positive, rows summing to 1, shape (d, k).
            means: shape (d, k).
            stds: positive, shape (d, k).
            rotation: orthogonal, shape (d, d).

        Raises:
            ValueError: shapes disagree, weights are not distributions, a standard deviation is
                not positive, or the rotation is not orthogonal.
        """
        weights, means, stds, rotation = (
            np.asarray(a, np.float64) for a in (weights, means, stds, rotation)
        )
        if weights.ndim != 2 or not weights.shape == means.shape == stds.shape:
            raise ValueError(
                "weights, means, stds: expected one shape (d, k); "
                f"got {weights.shape}, {means.shape} and {stds.shape}."
            )
        d = weights.shape[0]
        if not ((weights > 0).all() and np.abs(weights.sum(axis=1) - 1).max() < 1e-6):
            raise ValueError("weights: expected positive rows summing to 1.")
        if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds > 0).all()):
            raise ValueError("means, stds: expected finite numbers, stds positive.")
        if rotation.shape != (d, d) or not np.allclose(rotation @ rotation.T, np.eye(d), atol=1e-6):
            raise ValueError(f"rotation: expected an orthogonal matrix of shape {(d, d)}.")
        use_all_cores()
        self.log_weights = jnp.asarray(np.log(weights), float)
        self.means = jnp.asarray(means, float)
        self.stds = jnp.asarray(stds, float)
        self.rotation = jnp.asarray(rotation, float)

    @property
    def dim(self) -> int:
        """d."""
        return self.rotation.shape[0]

    @default_rules()
    def log_prob(self, y: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Log-density, nats, shape (n,)."""
        z = check_points(y, self.dim, "y") @ self.rotation
        r = (z[:, :, None] - self.means) / self.stds
        exponents = self.log_weights - jnp.log(self.stds) - 0.5 * r * r
        factors = logsumexp(exponents, axis=2) - 0.5 * math.log(2 * math.pi)
        return jnp.sum(factors, axis=1)

    @default_rules()
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """n draws, shape (n, d); MemoryError where they do not fit."""
        check_fits("n", n, self.dim)
        key_component, key_noise = jax.random.split(key)
        component = jax.random.categorical(key_component, self.log_weights, shape=(n, self.dim))
        rows = jnp.arange(self.dim)
        noise = jax.random.normal(key_noise, (n, self.dim))
        z = self.means[rows, component] + self.stds[rows, component] * noise
        return z @ self.rotation.T

    def moments(self) -> Moments:
        """The coordinates' moments, rotated."""
        log_weights, means, stds, rotation = (
            np.asarray(a, np.float64)
            for a in (self.log_weights, self.means, self.stds, self.rotation)
        )
        weights = np.exp(log_weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
        mean = (weights * means).sum(axis=1)
        variance = (weights * (stds**2 + means**2)).sum(axis=1) - mean**2
        return Moments(rotation @ mean, (rotation * variance) @ rotation.T)


def _check_mixture(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> None:
    if weights.ndim != 1 or means.ndim != 2 or means.shape[0] != weights.size:
        raise ValueError(
            "weights, means: expected shapes (k,) and (k, d); "
            f"got {weights.shape} and {means.shape}."
        )
    k, d = means.shape
    if covs.shape != (k, d, d):
        raise ValueError(f"covs: expected shape {(k, d, d)}; got {covs.shape}.")
    for name, array in {"weights": weights, "means": means, "covs": covs}.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers; got NaN or infinity.")
    if (weights <= 0).any() or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(f"weights: expected positive numbers summing to 1; got {weights}.")
    asymmetry = np.abs(covs - covs.transpose(0, 2, 1)).max()
    smallest = np.linalg.eigvalsh(covs).min()
    if asymmetry > 1e-8 * np.abs(covs).max() or smallest <= 0:
        raise ValueError(
            "covs: expected symmetric positive definite matrices; "
            f"got asymmetry {asymmetry:.2g}, smallest eigenvalue {smallest:.2g}."
        )
