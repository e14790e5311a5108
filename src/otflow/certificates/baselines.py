"""What a density must beat: a Gaussian and a Gaussian mixture on the same rows."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from otflow.support.extras import require
from otflow.support.statistics import covariance

_FOLDS = 5
_COMPONENTS = (2, 4, 8, 16)
_MOST_FIT = 2**13  # rows a mixture is fitted to
_MOST_COLUMNS = 64  # beyond, a mixture's covariances take too long and too many rows
_RIDGE = 1e-6  # added to variances of standardised columns, as scikit-learn does


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """A simple density's scores of the rows that a flow was scored on.

    Attributes:
        name: what it is.
        log_prob: (n,) nats, in the space of the flow; None where it could not be had.
        told: how it was fitted, or why it is missing.
    """

    name: str
    log_prob: Float[np.ndarray, " n"] | None
    told: str


def baselines(
    x: Float[np.ndarray, "n d"],
    train: Float[np.ndarray, "k d"] | None,
    given: int = 0,
    seed: int = 0,
) -> tuple[Baseline, ...]:
    """A Gaussian with a full covariance, and a mixture of such.

    Args:
        x: the rows to score, in the space of the flow.
        train: rows to fit to; None fits to four fifths of x and scores the fifth, five times, so
            that no row is scored by a density that has seen it.
        given: so many last columns are a condition: densities are those of the others given them.
        seed: of folds and starts.
    """
    n_fit = len(x) * (_FOLDS - 1) // _FOLDS if train is None else len(train)
    how = f"fitted to {'four fifths of these' if train is None else 'the given training'} rows"
    return (
        _gaussian(x, train, given, seed, n_fit, how),
        _mixture(x, train, given, seed, n_fit, how),
    )


def _gaussian(
    x: np.ndarray, train: np.ndarray | None, given: int, seed: int, n_fit: int, how: str
) -> Baseline:
    name, d = "Gaussian", x.shape[1]
    if n_fit <= d + 1:
        return Baseline(name, None, f"{n_fit} rows are too few for a covariance of {d} columns")

    def fit(rows: np.ndarray) -> "_Mixture":
        cov = covariance(rows) + _RIDGE * np.eye(d)
        return _Mixture(np.ones(1), rows.mean(axis=0)[None], cov[None])

    return Baseline(name, _scores(x, train, given, seed, fit), f"full covariance, {how}")


def _mixture(
    x: np.ndarray, train: np.ndarray | None, given: int, seed: int, n_fit: int, how: str
) -> Baseline:
    """The number of components is that of the least BIC."""
    name, d = "Gaussian mixture", x.shape[1]
    numbers = [k for k in _COMPONENTS if k * (d + 1) * (d + 2) / 2 <= n_fit]
    if d > _MOST_COLUMNS or not numbers:
        return Baseline(name, None, f"left out: {d} columns and {n_fit} rows to fit to")
    try:
        make = require("sklearn.mixture", "sklearn").GaussianMixture
    except ImportError as error:
        return Baseline(name, None, str(error))
    chosen: list[int] = []  # by the first rows that are fitted to

    def fit(rows: np.ndarray) -> "_Mixture":
        rows = rows[:_MOST_FIT]
        made = [make(k, random_state=seed, reg_covar=_RIDGE) for k in chosen or numbers]
        best = min((model.fit(rows) for model in made), key=lambda model: model.bic(rows))
        chosen[:] = [best.n_components]
        return _Mixture(best.weights_, best.means_, best.covariances_)

    with warnings.catch_warnings(), threadpool_limits(1):  # threads only wait on small matrices
        warnings.simplefilter("ignore")  # EM that has not converged is a weaker baseline, no fault
        scores = _scores(x, train, given, seed, fit)
    return Baseline(name, scores, f"{chosen[0]} components by BIC, {how}")


@dataclasses.dataclass(frozen=True, eq=False)
class _Mixture:
    weights: Float[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    covariances: Float[np.ndarray, "k d d"]

    def log_prob(self, x: Float[np.ndarray, "n d"], given: int) -> Float[np.ndarray, " n"]:
        """Of the first columns given the last ones."""
        found = self._joint(x)
        if given:
            part = slice(x.shape[1] - given, None)
            last = _Mixture(self.weights, self.means[:, part], self.covariances[:, part, part])
            found = found - last._joint(x[:, part])
        return found

    def _joint(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        terms = []
        for weight, mean, cov in zip(self.weights, self.means, self.covariances, strict=True):
            root = np.linalg.cholesky(cov)
            r = solve_triangular(root, (x - mean).T, lower=True)
            log_det = np.log(np.diag(root)).sum()
            normal = -0.5 * (r**2).sum(axis=0) - log_det - 0.5 * len(mean) * math.log(2 * math.pi)
            terms.append(math.log(max(weight, np.finfo(float).tiny)) + normal)
        return np.logaddexp.reduce(terms, axis=0)


def _scores(
    x: np.ndarray, train: np.ndarray | None, given: int, seed: int, fit: Callable[..., Any]
) -> Float[np.ndarray, " n"]:
    if train is not None:
        return fit(train).log_prob(x, given)
    scores = np.empty(len(x))
    fold = np.random.default_rng(seed).permutation(len(x)) % _FOLDS
    for k in range(_FOLDS):
        scores[fold == k] = fit(x[fold != k]).log_prob(x[fold == k], given)
    return scores
