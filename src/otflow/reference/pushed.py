"""The law on the line that an exact step ends at, as a density of its own: SPEC 7."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from otflow.reference.densities import AbstractDensity1D
from otflow.reference.numerics import TRUSTED, PiecewisePolynomial, increasing_inverse

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@final
@dataclass(frozen=True, eq=False)
class PushedDensity1D(AbstractDensity1D):
    """The law of y(s) = s + w(s), s ~ N(0, 1), with w the displacement of a solved problem.

    y is the quantile function in the normal-score coordinate, increasing, and straight in the far
    tails; the normal score is its inverse. An optimal end law has no point where it is not smooth.
    """

    displacement: PiecewisePolynomial

    @property
    def breaks(self) -> tuple[float, ...]:
        """None: the density is smooth."""
        return ()

    def quantile_of_score(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """y(s) = s + w(s), (n,) -> (n,)."""
        return s + self.displacement(s)

    def normal_score(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The inverse of y, (n,) -> (n,)."""
        edges = np.array([-TRUSTED, TRUSTED])
        ends, slopes = self.quantile_of_score(edges), self._slope(edges)
        inside = np.clip(x, *ends)
        low, high = (np.full(x.shape, edge) for edge in edges)
        s = increasing_inverse(
            self.quantile_of_score, lambda at, _: self._slope(at), inside, low, high
        )
        beyond = x - inside
        return s + np.where(beyond < 0, beyond / slopes[0], beyond / slopes[1])

    def log_pdf(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log of the density in nats, (n,) -> (n,)."""
        s = self.normal_score(x)
        return -0.5 * s**2 - _LOG_SQRT_2PI - np.log(self._slope(s))

    def log_tails(
        self, x: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """log F(x) and log(1 - F(x)), (n,) each."""
        s = self.normal_score(x)
        return special.log_ndtr(s), special.log_ndtr(-s)

    def bracket(
        self, s: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The quantile itself, which is known."""
        x = self.quantile_of_score(s)
        return x, x

    def _slope(self, s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """y'(s) > 0, constant in the far tails."""
        return 1.0 + self._rate(np.clip(s, -TRUSTED, TRUSTED))

    @property
    def _rate(self) -> PiecewisePolynomial:
        return self.displacement.derivative()
