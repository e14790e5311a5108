"""Input-convex potentials u: strongly convex everywhere by construction (SPEC 6)."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from otflow.potentials.activation import sigma_and_tanh
from otflow.support.statistics import covariance

KAPPA_FLOOR = 1e-3  # smallest modulus of strong convexity


class ValueGradient(NamedTuple):
    """u and its gradient at n points."""

    value: Float[Array, " n"]
    gradient: Float[Array, "n d"]


class ConvexPotential(eqx.Module):
    """u(x) = kappa/2 |x - m|^2 + 1/2 |B z|^2 + b'z + a's(W z + c) + q'p(V s(W z + c) + D z + e).

    z = P (x - m) whitens the data, s = log(2 cosh), p = softplus; a, q, V are nonnegative and
    kappa >= KAPPA_FLOOR because the raw parameters pass through softplus. Ridge functions plus a
    second layer of convex, increasing functions of convex ones: Amos, Xu and Kolter, Input convex
    neural networks (2017). u is kappa-strongly convex on all of R^d whatever the parameters.
    """

    centre: Float[Array, " d"]
    whitener: Float[Array, "d d"]
    raw_kappa: Float[Array, ""]
    B: Float[Array, "r d"]
    b: Float[Array, " d"]
    W: Float[Array, "m d"]
    c: Float[Array, " m"]
    raw_a: Float[Array, " m"]
    raw_mix: Float[Array, "k m"]
    D: Float[Array, "k d"]
    e: Float[Array, " k"]
    raw_q: Float[Array, " k"]

    @property
    def dim(self) -> int:
        """d."""
        return self.centre.shape[0]

    @property
    def kappa(self) -> Float[Array, ""]:
        """Modulus of strong convexity, > 0."""
        return KAPPA_FLOOR + jax.nn.softplus(self.raw_kappa)

    def value(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """u(x), shape (n,)."""
        return self.value_and_gradient(x).value

    def gradient(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """grad u(x), shape (n, d)."""
        return self.value_and_gradient(x).gradient

    def value_and_gradient(self, x: Float[Array, "n d"]) -> ValueGradient:
        """u and grad u, sharing the forward pass; shapes (n,) and (n, d)."""
        shifted = x - jax.lax.stop_gradient(self.centre)
        P = jax.lax.stop_gradient(self.whitener)
        z = shifted @ P.T
        a, V, q = (jax.nn.softplus(raw) for raw in (self.raw_a, self.raw_mix, self.raw_q))
        s, tanh = sigma_and_tanh(z @ self.W.T + self.c)
        inner = s @ V.T + z @ self.D.T + self.e
        slope = q * jax.nn.sigmoid(inner)
        Bz = z @ self.B.T
        value = (
            0.5 * self.kappa * jnp.sum(shifted**2, axis=1)
            + 0.5 * jnp.sum(Bz**2, axis=1)
            + z @ self.b
            + s @ a
            + jax.nn.softplus(inner) @ q
        )
        in_z = Bz @ self.B + self.b + (tanh * (a + slope @ V)) @ self.W + slope @ self.D
        return ValueGradient(value, self.kappa * shifted + in_z @ P)


def start(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    width: int,
    rng: np.random.Generator,
    directions: Float[np.ndarray, "k d"] | None = None,
) -> ConvexPotential:
    """A potential to fit grad u(x) ~ y from: a third of the Gaussian map's curvature, and ridges.

    Args:
        x, y: pairs, shape (n, d) each.
        width: m = k, units of each of the two layers.
        rng: chooses directions and kinks.
        directions: unit vectors among which the ridges' are drawn; None for random ones.

    Returns:
        The potential, in float32. Kinks of the ridges lie at points of x.
    """
    d = x.shape[1]
    mean, cov = x.mean(axis=0), covariance(x)
    P, root = _inverse_root(cov)
    A = _bures(root, P, covariance(y))
    low = max(float(np.linalg.eigvalsh(A)[0]), 0.0)
    kappa = max(0.1 * low, 2 * KAPPA_FLOOR)
    in_z = root @ A @ root  # curvature in z of the Gaussian map
    values, basis = np.linalg.eigh(in_z)
    B = np.sqrt(np.maximum(values, 1e-6) / 3)[:, None] * basis.T
    if directions is None:
        directions = rng.standard_normal((width, d))
    rows = directions[rng.integers(len(directions), size=width)] @ root
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    W = rows * rng.uniform(0.7, 2.0, (width, 1))
    kinks = ((x[rng.integers(len(x), size=width)] - mean) @ P.T * W).sum(axis=1)
    # on average over directions sum a w w' ~ width a / d: the ridges carry some of the curvature
    a = max(float(values.mean()) * d / (3 * width), 1e-6)
    found: dict[str, Any] = {
        "centre": mean,
        "whitener": P,
        "raw_kappa": np.array(_inverse_softplus(kappa - KAPPA_FLOOR)),
        "B": B,
        "b": root @ y.mean(axis=0),
        "W": W,
        "c": -kinks,
        "raw_a": np.full(width, _inverse_softplus(a)),
        "raw_mix": np.full((width, width), _inverse_softplus(0.3 / width))
        + 0.3 * rng.standard_normal((width, width)),
        "D": rng.standard_normal((width, d)) / np.sqrt(d),
        "e": rng.uniform(-2, 2, width),
        "raw_q": np.full(width, _inverse_softplus(0.1 * a)),
    }
    return ConvexPotential(**{k: jnp.asarray(v, jnp.float32) for k, v in found.items()})


def gaussian_potential(
    u: ConvexPotential, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]
) -> ConvexPotential:
    """u with a silent network and the quadratic whose gradient is the Gaussian map from x to y."""
    d = x.shape[1]
    P, root = _inverse_root(covariance(x))
    A = _bures(root, P, covariance(y))
    low = max(0.5 * float(np.linalg.eigvalsh(A)[0]), 2 * KAPPA_FLOOR)
    values, basis = np.linalg.eigh(root @ (A - low * np.eye(d)) @ root)
    B = np.sqrt(np.maximum(values, 0.0))[:, None] * basis.T
    silent = jnp.full_like(u.raw_a, -50.0), jnp.full_like(u.raw_q, -50.0)
    b, kappa = root @ y.mean(axis=0), _inverse_softplus(low - KAPPA_FLOOR)
    return eqx.tree_at(
        lambda u: (u.raw_a, u.raw_q, u.B, u.b, u.raw_kappa),
        u,
        (*silent, *(jnp.asarray(v, jnp.float32) for v in (B, b, kappa))),
    )


def _inverse_softplus(value: float) -> float:
    return float(value + np.log(-np.expm1(-value)))


def _inverse_root(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cov^(-1/2) and cov^(1/2), eigenvalues floored at 1e-4 of their mean."""
    values, basis = np.linalg.eigh(cov)
    sig = np.sqrt(np.maximum(values, max(1e-4 * values.mean(), 1e-12)))
    return (basis / sig) @ basis.T, (basis * sig) @ basis.T


def _bures(root: np.ndarray, inverse: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """The optimal linear map between N(0, root^2) and N(0, cov)."""
    values, basis = np.linalg.eigh(root @ cov @ root)
    middle = (basis * np.sqrt(np.maximum(values, 0.0))) @ basis.T
    return inverse @ middle @ inverse
