"""The quantile function of rho0 in the normal-score coordinate, on adaptive panels.

With s ~ N(0, 1) and X(s) = F^(-1)(Phi(s)), every expectation under rho0 or N(0, 1) becomes an
integral of a smooth function against the normal density: Gauss-Legendre panels converge
exponentially.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev

from otflow.reference.densities import AbstractDensity1D
from otflow.reference.numerics import EDGE, TRUSTED, PiecewisePolynomial, log_excess

DEGREE = 16
NODES = -np.cos(math.pi * np.arange(DEGREE + 1) / DEGREE)
TO_CHEBYSHEV = np.linalg.inv(chebyshev.chebvander(NODES, DEGREE))
QUADRATURE_NODES, QUADRATURE_WEIGHTS = np.polynomial.legendre.leggauss(24)
# values and slopes at the quadrature nodes from values at the panel's Chebyshev nodes
INTERPOLATE = chebyshev.chebvander(QUADRATURE_NODES, DEGREE) @ TO_CHEBYSHEV
DIFFERENTIATE = (
    chebyshev.chebvander(QUADRATURE_NODES, DEGREE - 1)
    @ chebyshev.chebder(np.eye(DEGREE + 1))
    @ TO_CHEBYSHEV
)
_SMALLEST_WIDTH = 1e-9
_MOST_PANELS = 5000


@final
@dataclass(frozen=True, eq=False)
class QuantilePanels:
    """X(s) on panels of [-EDGE, EDGE], with everything that does not depend on alpha.

    Fields:
        edges: panel edges in s, (panels+1,).
        node_scores, node_quantiles: s and X(s) at the Chebyshev nodes, (panels, DEGREE+1).
        scores, quantiles: s and X(s) at the Gauss-Legendre nodes, (panels, q).
        weights: quadrature weights that include the normal density, (panels, q).
        quantile: X as a piecewise polynomial.
        psi: the Kantorovich potential, mean zero under N(0, 1).
        half_w2_squared, entropy, rate_constant: 1/2 E(X - s)^2, E[-log rho0(X)], 1/2 Var(psi).
    """

    edges: Float[np.ndarray, " edges"]
    node_scores: Float[np.ndarray, "panels nodes"]
    node_quantiles: Float[np.ndarray, "panels nodes"]
    scores: Float[np.ndarray, "panels q"]
    quantiles: Float[np.ndarray, "panels q"]
    weights: Float[np.ndarray, "panels q"]
    quantile: PiecewisePolynomial
    psi: PiecewisePolynomial
    half_w2_squared: float
    entropy: float
    rate_constant: float

    @property
    def kl(self) -> float:
        """KL(rho0 || N(0, 1)) = E[w^2/2 + w' - log(1 + w')] for X(s) = s + w(s), nats."""
        nodal = self.node_quantiles - self.node_scores
        slope = (nodal @ DIFFERENTIATE.T) * (2.0 / np.diff(self.edges))[:, None]
        w = self.quantiles - self.scores
        return float(np.sum(self.weights * (0.5 * w**2 + log_excess(slope))))

    def polynomial(self, nodal: Float[np.ndarray, "panels nodes"]) -> PiecewisePolynomial:
        """The piecewise polynomial with the given values at the nodes."""
        return PiecewisePolynomial(self.edges, nodal @ TO_CHEBYSHEV.T)


@functools.lru_cache(maxsize=64)
def quantile_panels(density: AbstractDensity1D) -> QuantilePanels:
    """Resolve X(s) to 1e-11 and evaluate the quantities of the limit problem; cached by density.

    psi'(y) = y - X(y) and psi is centred under N(0, 1): SPEC 4.
    """
    edges, node_quantiles, quantiles = _resolve(density)
    node_scores, scores = _positions(edges, NODES), _positions(edges, QUADRATURE_NODES)
    density_weights = np.exp(-0.5 * scores**2) / math.sqrt(2.0 * math.pi)
    weights = 0.5 * np.diff(edges)[:, None] * QUADRATURE_WEIGHTS * density_weights
    displacement = scores - quantiles
    slope = PiecewisePolynomial(edges, (node_scores - node_quantiles) @ TO_CHEBYSHEV.T)
    psi = slope.antiderivative()
    psi.coefficients[:, 0] -= float(psi(np.zeros(1))[0])  # rounding: keep the numbers small first
    values = chebyshev.chebval(QUADRATURE_NODES, psi.coefficients.T)
    mean = float(np.sum(weights * values))
    psi.coefficients[:, 0] -= mean
    log_pdf = density.log_pdf(quantiles.ravel()).reshape(quantiles.shape)
    return QuantilePanels(
        edges=edges,
        node_scores=node_scores,
        node_quantiles=node_quantiles,
        scores=scores,
        quantiles=quantiles,
        weights=weights,
        quantile=PiecewisePolynomial(edges, node_quantiles @ TO_CHEBYSHEV.T),
        psi=psi,
        half_w2_squared=float(0.5 * np.sum(weights * displacement**2)),
        entropy=float(-np.sum(weights * log_pdf)),
        rate_constant=float(0.5 * np.sum(weights * (values - mean) ** 2)),
    )


def _positions(
    edges: Float[np.ndarray, " edges"], nodes: Float[np.ndarray, " nodes"]
) -> Float[np.ndarray, "panels nodes"]:
    """The panels' nodes; the outermost ones are the edges themselves, to the last bit."""
    low, high = edges[:-1, None], edges[1:, None]
    at = 0.5 * (low + high) + 0.5 * (high - low) * nodes
    return np.where(nodes == -1.0, low, np.where(nodes == 1.0, high, at))


def _resolve(
    density: AbstractDensity1D,
) -> tuple[
    Float[np.ndarray, " edges"],
    Float[np.ndarray, "panels nodes"],
    Float[np.ndarray, "panels q"],
]:
    """Halve panels until the nodal interpolant of X meets its values at the quadrature nodes."""
    start = _starting_edges(density)
    low, high = start[:-1], start[1:]
    done: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    count = 0
    while low.size:
        nodes = _quantiles(density, low, high, NODES)
        points = _quantiles(density, low, high, QUADRATURE_NODES)
        error = np.max(np.abs(nodes @ INTERPOLATE.T - points), axis=1)
        fine = error <= _tolerance(low, high, nodes)
        fine |= high - low < _SMALLEST_WIDTH
        done.append((low[fine], high[fine], nodes[fine], points[fine]))
        count += low.size
        if count > _MOST_PANELS:
            raise ValueError(
                f"Expected a piecewise smooth density; got one whose quantile function {count} "
                "panels do not resolve (name its non-smooth points in breaks)."
            )
        low, high = low[~fine], high[~fine]
        middle = 0.5 * (low + high)
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
    parts = [np.concatenate(part) for part in zip(*done, strict=True)]
    order = np.argsort(parts[0])
    edges = np.append(parts[0][order], EDGE)
    return edges, parts[2][order], parts[3][order]


def _starting_edges(density: AbstractDensity1D) -> Float[np.ndarray, " edges"]:
    """Panels of width 1/2; a non-smooth point replaces the regular edges within 1e-3 of it."""
    edges = np.linspace(-EDGE, EDGE, 49)
    for kink in density.normal_score(np.array(density.breaks, dtype=np.float64)):
        if abs(kink) < EDGE - 0.5:
            edges = np.append(edges[np.abs(edges - kink) > 1e-3], kink)
    return np.sort(edges)


def _quantiles(
    density: AbstractDensity1D,
    low: Float[np.ndarray, " panels"],
    high: Float[np.ndarray, " panels"],
    nodes: Float[np.ndarray, " nodes"],
) -> Float[np.ndarray, "panels nodes"]:
    at = 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * nodes
    return density.quantile_of_score(at.ravel()).reshape(at.shape)


def _tolerance(
    low: Float[np.ndarray, " panels"],
    high: Float[np.ndarray, " panels"],
    quantiles: Float[np.ndarray, "panels nodes"],
) -> Float[np.ndarray, " panels"]:
    """1e-11 relative to 1 + |X|, looser in the far tails, where the normal density vanishes."""
    nearest = np.minimum(np.abs(low), np.abs(high))
    loosen = np.exp(np.clip(0.25 * (nearest**2 - TRUSTED**2 / 2), 0.0, 40.0))
    return 1e-11 * (1.0 + np.max(np.abs(quantiles), axis=1)) * loosen
