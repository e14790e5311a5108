"""One-dimensional densities rho0, seen through their normal score S = Phi^(-1) o F.

The normal score is the optimal map of rho0 to N(0, 1). Tails are kept in logarithms, so that S
and its inverse, the quantile function X(s) = F^(-1)(Phi(s)), stay accurate far out.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy import special

from otflow.reference.numerics import increasing_inverse
from otflow.support.checks import check_array, check_weights

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class AbstractDensity1D(abc.ABC):
    """A density on an interval of the line: hashable, with its two tails."""

    @property
    @abc.abstractmethod
    def breaks(self) -> tuple[float, ...]:
        """Points where the density is not smooth."""

    @abc.abstractmethod
    def log_pdf(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log rho0(x) in nats."""

    @abc.abstractmethod
    def log_tails(
        self, x: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """log F(x) and log(1 - F(x)), each accurate where it is small."""

    @abc.abstractmethod
    def bracket(
        self, s: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Points below and above the quantile X(s)."""

    def normal_score(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """S(x) = Phi^(-1)(F(x)), (n,) -> (n,); infinite where a tail is not representable."""
        below, above = self.log_tails(x)
        score = special.ndtri_exp(np.minimum(below, above))
        return np.where(below <= above, score, -score)

    def quantile_of_score(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """X(s), the inverse of the normal score."""

        def slope(at: np.ndarray, score: np.ndarray) -> np.ndarray:
            return np.exp(self.log_pdf(at) + 0.5 * score**2 + _LOG_SQRT_2PI)

        return increasing_inverse(self.normal_score, slope, s, *self.bracket(s))


@final
@dataclass(frozen=True, init=False)
class Mixture1D(AbstractDensity1D):
    """The normal mixture sum_k weights[k] N(means[k], stds[k]^2) on the line.

    Built from sequences or arrays of equal length (k,), kept as tuples, so that equal mixtures are
    equal keys of a dictionary.

    Raises ValueError when the weights are not positive with sum 1 (within 1e-9), a standard
    deviation is not positive, or the lengths differ; TypeError for entries that are not real.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def __init__(self, weights: Any, means: Any, stds: Any):
        shares = check_weights("weights", weights)
        centres = check_array("means", means, (shares.size,))
        widths = check_array("stds", stds, (shares.size,))
        if np.any(widths <= 0):
            raise ValueError(f"Expected stds > 0; got a smallest entry of {widths.min()!r}.")
        for name, values in (("weights", shares), ("means", centres), ("stds", widths)):
            object.__setattr__(self, name, tuple(values.tolist()))

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the density is smooth."""
        return ()

    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights, means, stds = (np.array(v) for v in (self.weights, self.means, self.stds))
        return np.log(weights)[:, None], means[:, None], stds[:, None]

    def log_pdf(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log rho0(x) in nats, (n,) -> (n,)."""
        log_weights, means, stds = self._columns()
        z = (x - means) / stds
        return np.logaddexp.reduce(log_weights - 0.5 * z * z - np.log(stds) - _LOG_SQRT_2PI)

    def log_tails(
        self, x: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """log F(x) and log(1 - F(x)), (n,) each."""
        log_weights, means, stds = self._columns()
        z = (x - means) / stds
        below = np.logaddexp.reduce(log_weights + special.log_ndtr(z))
        return below, np.logaddexp.reduce(log_weights + special.log_ndtr(-z))

    def bracket(
        self, s: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The extreme component quantiles: F is between the components' distribution functions."""
        _, means, stds = self._columns()
        ends = means + stds * s
        slack = 1e-12 * (1.0 + np.abs(ends).max(axis=0))
        return ends.min(axis=0) - slack, ends.max(axis=0) + slack


@final
@dataclass(frozen=True, eq=False)
class TabulatedDensity1D(AbstractDensity1D):
    """Any density with a known logarithm, its tails integrated on panels; see `tabulate`.

    Fields: log_density, panel edges (k+1,), the mass below and above each edge (k+1,), the normal
    scores of the edges (k+1,) and the non-smooth points.
    """

    log_density: Any
    edges: Float[np.ndarray, " edges"]
    below: Float[np.ndarray, " edges"]
    above: Float[np.ndarray, " edges"]
    log_mass: float
    break_points: tuple[float, ...]

    @property
    def breaks(self) -> tuple[float, ...]:
        """Points where the density is not smooth, as the user gave them."""
        return self.break_points

    def log_pdf(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log rho0(x) in nats, (n,) -> (n,); -inf outside the support."""
        inside = (x >= self.edges[0]) & (x <= self.edges[-1])
        values = np.full(x.shape, -np.inf)
        values[inside] = np.asarray(self.log_density(x[inside]), dtype=np.float64)
        return values - self.log_mass

    def log_tails(
        self, x: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """log F(x) and log(1 - F(x)), (n,) each."""
        x = np.clip(x, self.edges[0], self.edges[-1])
        panel = np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, len(self.edges) - 2)
        left = gauss_integral(self.log_pdf, self.edges[panel], x)
        right = gauss_integral(self.log_pdf, x, self.edges[panel + 1])
        with np.errstate(divide="ignore"):
            return np.log(self.below[panel] + left), np.log(self.above[panel + 1] + right)

    def bracket(
        self, s: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The panel that holds the quantile."""
        with np.errstate(divide="ignore"):
            below, above = np.log(self.below), np.log(self.above)
        score = special.ndtri_exp(np.minimum(below, above))
        scores = np.where(below <= above, score, -score)
        panel = np.clip(np.searchsorted(scores, s, side="right") - 1, 0, len(self.edges) - 2)
        return self.edges[panel], self.edges[panel + 1]


GAUSS_NODES, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(20)


def gauss_integral(
    log_pdf: Any, low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The integral of exp(log_pdf) over each [low, high] with 20 Gauss-Legendre nodes."""
    half = 0.5 * (high - low)
    x = (0.5 * (low + high))[:, None] + half[:, None] * GAUSS_NODES
    values = np.asarray(log_pdf(x.ravel()), dtype=np.float64).reshape(x.shape)
    return half * (np.exp(values) @ GAUSS_WEIGHTS)
