"""One-sided confidence bounds for means and proportions."""

import math

import numpy as np
from jaxtyping import Float
from scipy import stats

ASSUMPTION = (
    "independent draws with a finite third moment; Student's t with Hall's correction for "
    "skewness, the wider of the two, valid for large n"
)


def upper_bound(values: Float[np.ndarray, " n"], level: float) -> float:
    """A bound that the mean of the law lies below with probability `level`.

    The larger of Student's bound and Hall's transformation of it, which corrects the skewness to
    second order; no bound on the values is needed. Assumes independent draws with a finite third
    moment and n large (coverage error O(1/n); the plain Student bound has O(n^(-1/2)) and
    under-covers nonnegative, right-skewed variables).

    Args:
        values: the draws, n >= 2; their unit is that of the bound.
        level: in (0.5, 1), for example 0.975.

    Raises:
        ValueError: fewer than two values, or a level out of range.

    Source: Hall, On the removal of skewness by transformation (1992); Johnson (1978).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"values: expected at least 2 draws, shape (n,); got {values.shape}.")
    if not 0.5 < level < 1:
        raise ValueError(f"level: expected a number in (0.5, 1); got {level}.")
    if not np.isfinite(values).all():
        return math.inf
    n, mean, sd = values.size, float(values.mean()), float(values.std(ddof=1))
    scale = float(np.abs(values).max())
    if sd <= 1e-14 * scale:
        return mean
    quantile = float(stats.t.ppf(level, n - 1))
    skewness = float(np.mean(((values - mean) / sd) ** 3))
    shift = max(quantile, -_hall(-quantile, skewness / math.sqrt(n)))
    return mean + shift * sd / math.sqrt(n)


def lower_bound(values: Float[np.ndarray, " n"], level: float) -> float:
    """A bound that the mean of the law lies above with probability `level`; as `upper_bound`."""
    return -upper_bound(-np.asarray(values, np.float64), level)


def _hall(x: float, k: float) -> float:
    """Hall's inverse transform of a quantile x, k = skewness / sqrt(n)."""
    if abs(k) < 1e-8:
        return x
    return 3 / k * (float(np.cbrt(1 + k * (x - k / 6))) - 1)


def share_interval(count: int, n: int, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a proportion, exact for independent draws."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(stats.beta.ppf(1 - tail, count + 1, n - count))
    return low, high
