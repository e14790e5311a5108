"""Exact answers in any dimension: rotated products of one-dimensional densities (SPEC 4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from otflow.reference.base import AbstractReference
from otflow.reference.densities import AbstractDensity1D, Mixture1D
from otflow.reference.keys import generator_from_key
from otflow.reference.one_dimensional import OneDimensionalReference, solve_1d
from otflow.support.checks import check_alpha, check_array, check_count, check_points

STANDARD_MIXTURE = Mixture1D((0.4, 0.6), (-2.0, 1.5), (0.5, 0.7))


@final
@dataclass(frozen=True, eq=False)
class ProductReference(AbstractReference):
    """The exact answer for x = Q z with independent z_i; see `product`.

    Beyond the common fields: factors, the solved one-dimensional problems in order (identical ones
    are the same object), and rotation Q (d, d).
    """

    alpha: float
    transport: float
    kl: float
    half_w2_squared: float
    entropy: float
    rate_constant: float
    dim: int
    factors: tuple[OneDimensionalReference, ...]
    rotation: Float[np.ndarray, "d d"]

    def map(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """T(x) = Q (T_i((Q'x)_i))_i, (n, d) -> (n, d).

        Raises ValueError for points outside the support of rho0.
        """
        z = check_points("x", x, self.dim) @ self.rotation
        return self._columnwise(z, OneDimensionalReference.map) @ self.rotation.T

    def from_scores(self, scores: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Q (F_i^(-1)(Phi(scores_i)))_i, (n, d) -> (n, d)."""
        z = self._columnwise(scores, lambda factor, s: factor.panels.quantile(s))
        return z @ self.rotation.T

    def log_prob(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """log rho0(x) = sum_i log rho_i((Q'x)_i) in nats, (n, d) -> (n,)."""
        z = check_points("x", x, self.dim) @ self.rotation
        return np.sum(self._columnwise(z, OneDimensionalReference.log_prob), axis=1)

    def psi(self, y: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The target-side Kantorovich potential sum_i psi_i((Q'y)_i), mean zero, (n, d) -> (n,)."""
        z = check_points("y", y, self.dim) @ self.rotation
        return np.sum(self._columnwise(z, OneDimensionalReference.psi), axis=1)

    def _groups(self) -> Iterator[tuple[OneDimensionalReference, list[int]]]:
        columns: dict[int, list[int]] = {}
        for index, factor in enumerate(self.factors):
            columns.setdefault(id(factor), []).append(index)
        for group in columns.values():
            yield self.factors[group[0]], group

    def _columnwise(
        self, z: Float[np.ndarray, "n d"], function: Callable[[Any, Any], Any]
    ) -> Float[np.ndarray, "n d"]:
        """function(factor_i, z_i) in column i; the columns of one factor go in one call."""
        result = np.empty_like(z)
        for factor, group in self._groups():
            part = z[:, group]
            result[:, group] = function(factor, part.ravel()).reshape(part.shape)
        return result


def product(
    factors: AbstractDensity1D | Sequence[AbstractDensity1D],
    rotation: Any = None,
    *,
    alpha: Any,
    count: Any = None,
) -> ProductReference:
    """The exact minimiser of J_alpha for a rotated product of one-dimensional densities.

    Arguments:
        factors: d densities (`Mixture1D` or from `tabulate`), or one density with `count` = d.
        rotation: orthogonal Q (d, d), x = Q z; None for the identity.
        alpha: penalty weight > 0, or math.inf.
        count: d, when `factors` is a single density.

    N(0, I) is rotation invariant and both costs are sums over the independent z_i, so the problem
    separates: transport, KL, entropy, 1/2 W2^2 and the rate constant are sums. Equal factors are
    solved once.

    Raises TypeError for factors that are not densities, ValueError when Q is not orthogonal to
    1e-10 or a shape is wrong. Source: SPEC 4.
    """
    alpha = check_alpha(alpha)
    densities = _check_factors(factors, count)
    dim = len(densities)
    rotation = np.eye(dim) if rotation is None else _check_rotation(rotation, dim)
    solved = {density: solve_1d(density, alpha) for density in dict.fromkeys(densities)}
    references = tuple(solved[density] for density in densities)

    def total(name: str) -> float:
        return math.fsum(getattr(reference, name) for reference in references)

    return ProductReference(
        alpha=alpha,
        transport=total("transport"),
        kl=total("kl"),
        half_w2_squared=total("half_w2_squared"),
        entropy=total("entropy"),
        rate_constant=total("rate_constant"),
        dim=dim,
        factors=references,
        rotation=rotation,
    )


def product_mixture(dim: Any, alpha: Any, seed: Any = 0) -> ProductReference:
    """The project's standard problem: `dim` rotated copies of 0.4 N(-2, 0.5^2) + 0.6 N(1.5, 0.7^2).

    Arguments:
        dim: the dimension d.
        alpha: penalty weight > 0, or math.inf.
        seed: determines the rotation (`random_rotation`).
    """
    rotation = random_rotation(dim, seed)
    return product(STANDARD_MIXTURE, rotation, alpha=alpha, count=dim)


def random_rotation(dim: Any, seed: Any) -> Float[np.ndarray, "d d"]:
    """A rotation (dim, dim) with determinant 1, uniform on the group; seed is an int or a JAX key.

    The QR factor of a normal matrix, with signs that make the triangular diagonal positive.
    """
    size = check_count("dim", dim)
    q, r = np.linalg.qr(generator_from_key(seed).standard_normal((size, size)))
    q = q * np.sign(np.diag(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


def _check_factors(factors: Any, count: Any) -> tuple[AbstractDensity1D, ...]:
    if isinstance(factors, AbstractDensity1D):
        if count is None:
            raise ValueError("Expected count (the dimension) with a single factor; got None.")
        return (factors,) * check_count("count", count)
    if not isinstance(factors, Sequence):
        raise TypeError(f"Expected factors to be densities; got {type(factors)}.")
    for factor in factors:
        if not isinstance(factor, AbstractDensity1D):
            raise TypeError(f"Expected factors to be densities on the line; got {type(factor)}.")
    if len(factors) == 0 or (count is not None and count != len(factors)):
        raise ValueError(f"Expected count={count!r} factors, at least 1; got {len(factors)}.")
    return tuple(factors)


def _check_rotation(rotation: Any, dim: int) -> Float[np.ndarray, "d d"]:
    q = check_array("rotation", rotation, (dim, dim))
    error = float(np.max(np.abs(q.T @ q - np.eye(dim))))
    if error > 1e-10:
        raise ValueError(f"Expected rotation'rotation = I within 1e-10; got an error of {error!r}.")
    return q
