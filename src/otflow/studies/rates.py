"""Rates of convergence with intervals, and what they say about a claim."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from otflow.studies.verdicts import Statement, Verdict, verdict_at_least
from otflow.support.checks import check_fraction, read_numbers

__all__ = [
    "Rate",
    "Statement",
    "Verdict",
    "fit_rate",
    "verdict_at_least",
    "verdict_slope",
]

_UNKNOWN = (-math.inf, math.inf)
_PRIOR = 2.0  # degrees of freedom with which the pooled variance enters that of one point
_MOST_UNUSABLE = 0.025  # fraction of draws without a slope, beyond which there is no interval


@dataclasses.dataclass(frozen=True)
class Rate:
    """A power law value ~ exp(intercept) x^slope.

    Attributes:
        slope: NaN where fewer than two points have a positive mean.
        interval: confidence interval of the slope, (-inf, inf) where the data give none.
        intercept: log of the value at x = 1.
        n_points: points in the fit.
        n_unusable: bootstrap draws in which some point's mean was not positive.
        text: all of it in words.
    """

    slope: float
    interval: tuple[float, float]
    intercept: float
    n_points: int
    n_unusable: int
    text: str


@dataclasses.dataclass(frozen=True)
class _Points:
    """Means at x with the relative variances of their errors."""

    log_x: Float[np.ndarray, " k"]
    mean: Float[np.ndarray, " k"]
    replicates: tuple[Float[np.ndarray, " r"], ...]
    noise: Float[np.ndarray, " k"]

    @property
    def count(self) -> Float[np.ndarray, " k"]:
        return np.array([float(len(v)) for v in self.replicates])

    def spread(self, *, moderated: bool) -> Float[np.ndarray, " k"]:
        """Relative variance over the replicates of each mean.

        The pooled one (of means, each at most 1) stands in where there is one replicate, and as
        two further degrees of freedom where moderated: sample variances of three replicates alone
        give weights that are mostly chance, and intervals that are too short.
        """
        nu = self.count - 1
        found = np.array([v.var(ddof=1) if len(v) > 1 else 0.0 for v in self.replicates])
        found = found / self.mean**2
        pooled = np.minimum(found[nu > 0], 1.0).mean() if (nu > 0).any() else 0.0
        prior = np.where(nu > 0, _PRIOR if moderated else 0.0, 1.0)
        mixed = (nu * found + prior * pooled) / (nu + prior)
        return mixed / self.count


def fit_rate(
    x: ArrayLike,
    values: ArrayLike,
    noise: ArrayLike = 0.0,
    *,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> Rate:
    """The slope of log mean value against log x, with a bootstrap interval.

    Weighted least squares with weights 1 / relative variance; each point's variance over
    replicates is moderated by the pooled one (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3(1)).
    The bootstrap resamples the replicates of each x and adds Gaussian noise. Few replicates make
    percentile intervals too short (Hesterberg 2015, Am. Stat. 69(4), "narrowness bias"): deviations
    of the resampled means are inflated by sqrt(r / (r - 1)), slopes so that their variance is the
    moderated one, and the percentiles are those of Student's t (Satterthwaite's degrees).
    A point whose mean is not positive is left out. One replicate a point and no noise say nothing
    about errors: the interval is then infinite. For exact values, pass their numerical error as
    noise.

    Args:
        x: (k,), distinct and > 0.
        values: (k, r) replicates; NaN where one is missing.
        noise: (k,) or one number >= 0, in units of `values`: standard error of an error that all
            replicates of one x share, independent between x.
        confidence: of the interval, in (0, 1).
        n_bootstrap: draws, at least 100.
        seed: of the draws.

    Raises:
        ValueError, TypeError: an argument is not as said.
    """
    check_fraction("confidence", confidence)
    if isinstance(n_bootstrap, bool) or not isinstance(n_bootstrap, (int, np.integer)):
        raise TypeError(f"n_bootstrap: expected an integer; got {type(n_bootstrap).__name__}.")
    if n_bootstrap < 100:
        raise ValueError(f"n_bootstrap: expected an integer >= 100; got {n_bootstrap}.")
    points, left_out = _read(x, values, noise)
    k = len(points.mean)
    note = f"; {left_out} left out, mean not positive" if left_out else ""
    if k < 2:
        text = f"no slope: two points with a positive mean are needed, {k} found{note}"
        return Rate(math.nan, _UNKNOWN, math.nan, k, 0, text)
    error = points.spread(moderated=True) + (points.noise / points.mean) ** 2
    weights = 1 / np.maximum(error, max(1e-6 * error.max(), np.finfo(float).eps ** 2))
    slope, intercept = (float(v) for v in _line(points.log_x, np.log(points.mean), weights))
    n_unusable, interval = 0, _UNKNOWN
    if (points.count == 1).all() and (points.noise == 0).any():
        note += "; no interval: one replicate and no noise say nothing about errors"
    else:
        means = _resample(points, n_bootstrap, np.random.default_rng(seed))
        usable = means > 0
        n_unusable = int((~usable.all(axis=1)).sum())
        if (usable.sum(axis=1) < 2).mean() > _MOST_UNUSABLE:
            note += "; no interval: too many bootstrap draws have no slope"
        else:
            interval = _interval(points, weights, slope, means, confidence)
    low, high = interval
    text = f"slope {slope:.4g} [{low:.4g}, {high:.4g}] at {100 * confidence:g} %, {k} points{note}"
    return Rate(slope, interval, intercept, k, n_unusable, text)


def slope_claim(claim: str, expected: float, tolerance: float) -> str:
    """A claim that says what `verdict_slope` decides: the slope it stands for, and to what."""
    return f"{claim} (slope {expected:g} to within {tolerance:g})"


def verdict_slope(rate: Rate, expected: float, tolerance: float) -> Verdict:
    """Whether the slope is expected +- tolerance, decided by its whole interval.

    Raises:
        ValueError, TypeError: no Rate, or numbers that are not finite, or a negative tolerance.
    """
    if not isinstance(rate, Rate):
        raise TypeError(f"rate: expected a Rate; got {type(rate).__name__}.")
    centre = float(read_numbers("expected", expected, 0))
    half = float(read_numbers("tolerance", tolerance, 0))
    if not math.isfinite(centre):
        raise ValueError(f"expected: expected a finite number; got {centre}.")
    if not 0 <= half < math.inf:
        raise ValueError(f"tolerance: expected a finite number >= 0; got {half}.")
    low, high = rate.interval
    if centre - half <= low and high <= centre + half:
        return "holds"
    return "violated" if low > centre + half or high < centre - half else "not resolved"


def _read(x: ArrayLike, values: ArrayLike, noise: ArrayLike) -> tuple[_Points, int]:
    """The points with a positive mean, and how many there were with another one."""
    where, table = read_numbers("x", x, 1), read_numbers("values", values, 2)
    if not (np.isfinite(where) & (where > 0)).all() or len(set(where)) < len(where):
        raise ValueError(f"x: expected distinct finite numbers > 0; got {where}.")
    if len(table) != len(where) or not table.size:
        raise ValueError(f"values: expected shape ({len(where)}, r >= 1); got {table.shape}.")
    if np.isinf(table).any():
        raise ValueError("values: expected finite numbers or NaN; got an infinite one.")
    error = np.asarray(noise)
    error = read_numbers("noise", error, 1 if error.ndim else 0)
    if error.shape not in ((), where.shape):
        raise ValueError(f"noise: expected one number or {len(where)}; got {error.size}.")
    if not (np.isfinite(error) & (error >= 0)).all():
        raise ValueError(f"noise: expected finite numbers >= 0; got {error}.")
    rows = [row[~np.isnan(row)] for row in table]
    mean = np.array([row.mean() if len(row) else np.nan for row in rows])
    kept = np.flatnonzero(mean > 0)
    points = _Points(
        log_x=np.log(where[kept]),
        mean=mean[kept],
        replicates=tuple(rows[i] for i in kept),
        noise=np.broadcast_to(error, where.shape)[kept],
    )
    return points, int((mean <= 0).sum())


def _line(log_x: np.ndarray, log_y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Slope and intercept of weighted least squares along the last axis."""
    total = weights.sum(axis=-1)
    x, y = ((weights * v).sum(axis=-1) / total for v in (log_x, log_y))
    centred = log_x - x[..., None]
    slope = (weights * centred * log_y).sum(axis=-1) / (weights * centred**2).sum(axis=-1)
    return slope, y - slope * x


def _resample(points: _Points, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Means of resampled replicates with noise, (draws, k)."""
    means = np.tile(points.mean, (draws, 1))
    for column, row in zip(means.T, points.replicates, strict=True):
        if (r := len(row)) > 1:
            resampled = row[rng.integers(0, r, (draws, r))].mean(axis=1)
            column += math.sqrt(r / (r - 1)) * (resampled - row.mean())
    alone = np.where(points.count == 1, points.spread(moderated=False), 0.0)
    error = np.sqrt(points.noise**2 + alone * points.mean**2)
    return means + error * rng.standard_normal(means.shape)


def _interval(
    points: _Points, weights: np.ndarray, slope: float, means: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Percentiles of the slopes of resampled means, as `fit_rate` describes."""
    kept = (means > 0).sum(axis=1) >= 2
    means = means[kept]
    usable = means > 0
    slopes, _ = _line(points.log_x, np.log(np.where(usable, means, 1.0)), weights * usable)
    centred = points.log_x - np.average(points.log_x, weights=weights)
    leverage = (weights * centred / (weights * centred**2).sum()) ** 2
    noise = (points.noise / points.mean) ** 2
    plain, moderated = (leverage * (points.spread(moderated=m) + noise) for m in (False, True))
    if plain.sum() > 0:
        widen = math.sqrt(max(1.0, moderated.sum() / plain.sum()))
        slopes = slope + widen * (slopes - slope)
    nu = points.count - 1
    chance = (leverage * points.spread(moderated=True)) ** 2 / np.where(
        nu > 0, nu, max(nu.sum(), 1)
    )
    degrees = min(moderated.sum() ** 2 / chance.sum(), 1e6) if chance.sum() > 0 else 1e6
    tail = ndtr(stdtrit(degrees, (1 - confidence) / 2))
    low, high = np.quantile(slopes, [tail, 1 - tail])
    return float(low), float(high)
