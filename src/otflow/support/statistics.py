"""Means with their errors, also of rows without density, and covariances, in one place."""

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


@dataclasses.dataclass(frozen=True)
class MeanScore:
    """The mean log-density of rows, nats, some of which may have none: outside the bounds, or where
    the map has no inverse. One such row makes the mean over all -inf.

    Attributes:
        n: how many rows.
        without: how many of them have no density.
        others: the mean over those that do.
    """

    n: int
    without: int
    others: Estimate

    @staticmethod
    def of(log_prob: Float[np.ndarray, " n"]) -> "MeanScore":
        """Of log-densities, -inf where there is none."""
        some = log_prob[np.isfinite(log_prob)]
        return MeanScore(log_prob.size, log_prob.size - some.size, Estimate.of(some))

    def to_dict(self) -> dict[str, Any]:
        """As `otflow score --json` has it; the keys are in docs/cli.md."""
        mean = self.others.mean
        interval = list(self.others.interval) if self.n - self.without > 1 else None
        return {
            "rows": self.n,
            "log_prob": -math.inf if self.without else mean,
            "interval_95": None if self.without else interval,
            "without_density": self.without,
            "log_prob_of_others": mean,
            "interval_95_of_others": interval,
        }

    def __str__(self) -> str:
        half = f" +- {self.others.half:.4f}" if self.n - self.without > 1 else ""
        mean = f"{self.others.mean:.4f}{half} nats{' (95 %)' if half else ''}"
        if not self.without:
            return f"mean log-density of {self.n} rows: {mean}"
        others = f"; that of the others is {mean}" if self.n > self.without else ""
        return f"{lacking(self.without, self.n)}: the mean log-density of all is -inf{others}"


def lacking(without: int, n: int) -> str:
    """That so many of n rows have no density: the one wording."""
    return f"{without:,} of {n:,} rows have no density"


def covariance(rows: Float[np.ndarray, "n d"], **options: Any) -> Float[np.ndarray, "d d"]:
    """`np.cov` of columns, a matrix for one column too."""
    return np.cov(rows, rowvar=False, **options).reshape(rows.shape[1], rows.shape[1])
