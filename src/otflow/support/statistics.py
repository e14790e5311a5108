"""Means with their errors and covariances of rows, in one place."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float

Z95 = 1.959963984540054  # standard errors on either side: 95 % of the normal law


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean and its standard error."""

    mean: float
    standard_error: float

    @staticmethod
    def of(values: Float[np.ndarray, " n"]) -> "Estimate":
        """The mean of independent values; the error is infinite of one, both are NaN of none."""
        n = len(values)
        if n < 2:
            return Estimate(float(values[0]) if n else math.nan, math.inf if n else math.nan)
        return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n))

    @staticmethod
    def of_few(values: Float[np.ndarray, " n"]) -> "Estimate":
        """As `of`, the error widened so that a normal interval from it is Student's."""
        from scipy.special import stdtrit  # not at the command line's start

        found, n = Estimate.of(values), len(values)
        if n < 2:
            return found
        return Estimate(found.mean, found.standard_error * float(stdtrit(n - 1, 0.975)) / Z95)

    @property
    def half(self) -> float:
        """Half the width of the 95 % confidence interval."""
        return Z95 * self.standard_error

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval."""
        return self.mean - self.half, self.mean + self.half


def covariance(rows: Float[np.ndarray, "n d"], **options: Any) -> Float[np.ndarray, "d d"]:
    """`np.cov` of columns, a matrix for one column too."""
    return np.cov(rows, rowvar=False, **options).reshape(rows.shape[1], rows.shape[1])
