"""One-sided confidence bounds for means and proportions, and whether they may be called proved."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from otflow.certificates.tails import upper_tail

LEAST = 400  # draws from which a mean may be called proved
HEAVIEST = 1 / 4  # tail index from which there is no fourth moment
_Z = 2.576  # standard errors up to which the index is tested: 99.5 %
ASSUMPTION = (
    "independent draws, the tail as far out as in their largest ones, no mean carried by a share "
    "below 1 %"
)


class Bound(NamedTuple):
    """A bound of a mean, and what the draws say of its assumptions.

    Attributes:
        value: the bound.
        tail_index: the index (`tails.Tail`) that the draws allow at 99.5 %: infinite where nothing
            tells it, minus infinity for draws that are all equal.
        n: draws.
    """

    value: float
    tail_index: float
    n: int

    @property
    def doubt(self) -> str:
        """Why the bound may not be called proved; empty where it may.

        There is no bound of a mean without assumptions. This one's are tested: at least 400 draws,
        and none that allow a tail index of 1/4, from which there is no fourth moment and Student's
        statistic is far from its law.
        """
        if self.n < LEAST:
            return f"{self.n} draws, fewer than {LEAST}, cannot tell their tail"
        if self.tail_index < HEAVIEST:
            return ""
        return (
            f"the tail index may be {self.tail_index:.2g}, and from {HEAVIEST:.2g} there is no "
            "fourth moment"
        )


def known(value: float) -> Bound:
    """A bound that no draws are needed for."""
    return Bound(value, -math.inf, LEAST)


def upper_bound(values: Float[np.ndarray, " n"], level: float) -> Bound:
    """A bound that the mean of the law lies below with probability `level`.

    The larger of Student's bound and Hall's transformation of it, which corrects the skewness to
    second order, and on top of it what the tail may carry beyond the draws (`Tail.missing`): next
    to nothing for light tails, many times the rest for heavy ones and few draws.

    Args:
        values: the draws, n >= 2; their unit is that of the bound.
        level: in (0.5, 1), for example 0.975.

    Raises:
        ValueError: fewer than two values, or a level out of range.

    Source: Hall, On the removal of skewness by transformation (1992); Johnson (1978). That nothing
    holds for every law: Bahadur and Savage (1956).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"values: expected at least 2 draws, shape (n,); got {values.shape}.")
    value, index = upper_bounds(values[None], level)
    return Bound(float(value[0]), float(index[0]), values.size)


def lower_bound(values: Float[np.ndarray, " n"], level: float) -> Bound:
    """A bound that the mean of the law lies above with probability `level`; as `upper_bound`."""
    found = upper_bound(-np.asarray(values, np.float64), level)
    return found._replace(value=-found.value)


def upper_bounds(
    values: Float[np.ndarray, "m n"], level: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Value and index of `upper_bound` of m samples; infinite where one is not finite."""
    if not 0.5 < level < 1:
        raise ValueError(f"level: expected a number in (0.5, 1); got {level}.")
    finite = np.isfinite(values).all(axis=1)
    values = np.where(finite[:, None], values, 0.0)
    n, mean, sd = values.shape[1], values.mean(axis=1), values.std(axis=1, ddof=1)
    varies = sd > 1e-14 * np.abs(values).max(axis=1)
    sd = np.where(varies, sd, 1.0)
    skewness = np.mean(((values - mean[:, None]) / sd[:, None]) ** 3, axis=1)
    quantile = float(stats.t.ppf(level, n - 1))
    shift = np.maximum(quantile, -_hall(-quantile, skewness / math.sqrt(n)))
    margin, index = shift * sd / math.sqrt(n), np.full(len(values), math.inf)
    tail = upper_tail(values)
    if tail is not None:
        margin = margin + tail.missing(float(stats.norm.ppf(level)))
        index = tail.limit(_Z)
    value = np.where(finite, np.where(varies, mean + margin, mean), math.inf)
    return value, np.where(finite, np.where(varies, index, -math.inf), math.inf)


def _hall(x: float, k: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Hall's inverse transform of a quantile x, k = skewness / sqrt(n)."""
    small = np.abs(k) < 1e-8
    k = np.where(small, 1.0, k)
    return np.where(small, x, 3 / k * (np.cbrt(1 + k * (x - k / 6)) - 1))


def share_interval(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion, exact for independent draws."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(stats.beta.ppf(1 - tail, count + 1, n - count))
    return low, high
