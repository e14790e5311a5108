"""How heavy the upper tail of a variable is, and what a mean may miss of it.

The largest k = min(n / 4, 3 n^(2/3)) of n draws are taken for generalised Pareto: then their
spacings i (X_(i) - X_(i+1)), X_(1) the largest, are near-independent and exponential, with means
sigma (i/k)^-xi. That is a log-linear model with one slope, the tail index xi: 0 for an exponential
tail, negative for a bounded one; moments of order 1/xi and above do not exist. All functions take m
samples at once.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

_SHARE, _FACTOR = 0.25, 3  # of the draws: the tail; ever less of them, as ever more are left
_LEAST = 20  # draws below which there is no tail to speak of
_MOST_INDEX = 0.95  # beyond it, a mean may be anything: the tail counts as this
_RANGE = 3.0  # of the index
_HALVINGS = 30


@dataclasses.dataclass(frozen=True)
class Tail:
    """The tail of m samples.

    Attributes:
        index: xi.
        error: its standard error, widened where the spacings vary more than exponentials do, as
            they do beside a far cluster.
        spacings, logs: of the k order statistics, and log(i/k).
        excess: mean of the draws above the threshold, less it.
        share: of the draws above it.
    """

    index: Float[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]
    spacings: Float[np.ndarray, "m k"]
    logs: Float[np.ndarray, " k"]
    excess: Float[np.ndarray, " m"]
    share: float

    def limit(self, z: float) -> Float[np.ndarray, " m"]:
        """The index, z standard errors up."""
        return self.index + z * self.error

    def missing(self, z: float) -> Float[np.ndarray, " m"]:
        """How far the mean may lie above that of the draws, because of values beyond them.

        The mean excess sigma / (1 - xi) of the law at `limit(z)`, less the draws' own.
        """
        index = np.minimum(self.limit(z), _MOST_INDEX)
        scale = np.mean(self.spacings * np.exp(index[:, None] * self.logs), axis=1)
        return self.share * np.maximum(scale / (1 - index) - self.excess, 0.0)


def upper_tail(values: Float[np.ndarray, "m n"]) -> Tail | None:
    """The tail of each row of values; None of fewer than 20 draws."""
    n = values.shape[1]
    if n < _LEAST:
        return None
    k = int(min(_SHARE * n, _FACTOR * n ** (2 / 3)))
    top = _spread(-np.sort(-values, axis=1))[:, : k + 1]
    ranks = np.arange(1, k + 1)
    spacings, logs = ranks * (top[:, :-1] - top[:, 1:]), np.log(ranks / k)
    centred = logs - logs.mean()
    index = _slope(spacings, logs, centred)
    level = spacings * np.exp(index[:, None] * logs)  # exponentials of one mean
    spread = level / np.maximum(level.mean(axis=1), np.finfo(float).tiny)[:, None] - 1
    wider = np.sqrt(np.maximum(np.sum(spread**2, axis=1) / (k - 2), 1.0))
    # spacings of a heavy tail depend on one another: (1 + xi), as of the maximum likelihood
    error = wider * np.maximum(1.0, 1 + index) / np.linalg.norm(centred)
    excess = top[:, :-1].mean(axis=1) - top[:, -1]
    return Tail(index, error, spacings, logs, excess, k / n)


def _spread(ordered: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    """Falling rows with equal values spread towards their neighbours, as of a rounded variable."""
    for i in np.flatnonzero((np.diff(ordered, axis=1) == 0).any(axis=1)):
        falling, counts = np.unique(-ordered[i], return_counts=True)
        middles = np.cumsum(counts) - (counts + 1) / 2
        ordered[i] = -np.interp(np.arange(ordered.shape[1]), middles, falling)
    return ordered


def _slope(
    spacings: Float[np.ndarray, "m k"],
    logs: Float[np.ndarray, " k"],
    centred: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " m"]:
    """The most likely index in [-3, 3], by bisection: the score is monotone."""
    low, high = np.full(len(spacings), -_RANGE), np.full(len(spacings), _RANGE)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        up = (spacings * np.exp(middle[:, None] * logs)) @ centred < 0
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return 0.5 * (low + high)
