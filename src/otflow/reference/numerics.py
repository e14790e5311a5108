"""Small numerical pieces: w - log(1 + w) without cancellation, inverses, piecewise polynomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev

# Normal scores beyond this are extrapolated: the truncation of the line at EDGE leaves an error
# of exp(-(EDGE^2 - TRUSTED^2)/2) = 2e-12 there, and 7e-21 at a score of 7.
EDGE = 12.0
TRUSTED = 9.5


def log_excess(w: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """w - log(1 + w) for w > -1: non-negative and accurate to rounding however small w is.

    Near zero, log(1 + w) = 2 artanh(r) with r = w / (2 + w), so that
    w - log(1 + w) = r w - 2 (r^3/3 + r^5/5 + ...).
    """
    w = np.asarray(w, dtype=np.float64)
    small = np.abs(w) < 0.1
    near = np.where(small, w, 0.0)
    r = near / (2.0 + near)
    square = r * r
    series = np.zeros_like(r)
    for k in range(17, 1, -2):
        series = square * (1.0 / k + series)
    far = np.where(small, 0.0, w)
    return np.where(small, r * (near - 2.0 * series), far - np.log1p(far))


def increasing_inverse(
    function: Callable[[np.ndarray], np.ndarray],
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray],
    values: Float[np.ndarray, " n"],
    low: Float[np.ndarray, " n"],
    high: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """Where an increasing function takes the values, by Newton's method inside a bracket.

    `slope(x, function(x))` is its derivative; it may be wrong, which costs halvings of the bracket.
    """
    low, high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    x = 0.5 * (low + high)
    last = high - low
    active = np.arange(values.size)
    for _ in range(200):
        at, target = x[active], values[active]
        value = function(at)
        residual = value - target
        low[active] = np.where(residual <= 0, at, low[active])
        high[active] = np.where(residual >= 0, at, high[active])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            trial = at - residual / slope(at, value)
        step = np.abs(trial - at)
        inside = (trial >= low[active]) & (trial <= high[active])
        newton = inside & (step <= 0.5 * last[active])
        trial = np.where(newton, trial, 0.5 * (low[active] + high[active]))
        trial = np.where(residual == 0, at, trial)
        last[active] = np.abs(trial - at)
        x[active] = trial
        active = active[last[active] > 4e-16 * np.abs(trial) + 1e-300]
        if active.size == 0:
            break
    return x


@final
class PiecewisePolynomial:
    """A continuous function of the normal score, a Chebyshev polynomial on each panel.

    Beyond +-TRUSTED it continues by its Taylor polynomial of order `tail_order` (1 or 2).
    """

    def __init__(
        self,
        edges: Float[np.ndarray, " edges"],
        coefficients: Float[np.ndarray, "panels coefficients"],
        tail_order: int = 1,
    ):
        self.edges = edges
        self.coefficients = coefficients
        self.tail_order = tail_order

    def __call__(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Values at the scores s, of shape (n,)."""
        inside = np.clip(s, -TRUSTED, TRUSTED)
        value = self._inside(inside)
        out = np.flatnonzero(inside != s)
        derivative, factorial = self, 1.0
        for order in range(1, self.tail_order + 1 if out.size else 1):
            derivative, factorial = derivative.derivative(), factorial * order
            step = (s[out] - inside[out]) ** order / factorial
            value[out] += step * derivative._inside(inside[out])
        return value

    def _inside(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Clenshaw's sum on the panel that holds each score."""
        panel = np.clip(np.searchsorted(self.edges, s, side="right") - 1, 0, len(self.edges) - 2)
        width = self.edges[panel + 1] - self.edges[panel]
        t = 2.0 * (s - self.edges[panel]) / width - 1.0
        columns = np.ascontiguousarray(self.coefficients.T)
        after, after_next = np.zeros_like(t), np.zeros_like(t)
        for column in columns[:0:-1]:
            after, after_next = column[panel] + 2.0 * t * after - after_next, after
        return columns[0][panel] + t * after - after_next

    def derivative(self) -> PiecewisePolynomial:
        """The derivative, panel by panel."""
        slope = 2.0 / np.diff(self.edges)[:, None]
        return PiecewisePolynomial(
            self.edges, chebyshev.chebder(self.coefficients, axis=1) * slope, tail_order=0
        )

    def antiderivative(self, tail_order: int = 2) -> PiecewisePolynomial:
        """The continuous antiderivative that vanishes at the first edge."""
        half = 0.5 * np.diff(self.edges)[:, None]
        primitive = chebyshev.chebint(self.coefficients, lbnd=-1, axis=1) * half
        rises = chebyshev.chebval(1.0, primitive.T)
        primitive[:, 0] += np.concatenate([[0.0], np.cumsum(rises)[:-1]])
        return PiecewisePolynomial(self.edges, primitive, tail_order)
