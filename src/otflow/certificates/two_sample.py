"""Two-sample tests: do two sets of rows come from one law?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class TwoSample(NamedTuple):
    """A statistic, its value under equal laws, and the permutation p-value.

    p_value: at most a with probability a where the laws are equal (exact level).
    expected: mean of the statistic over the permutations.
    """

    statistic: float
    expected: float
    p_value: float


def mmd(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    permutations: int = 199,
    seed: int = 0,
) -> TwoSample:
    """Squared maximum mean discrepancy, Gaussian kernel of the pooled median distance.

    Args:
        x, y: the samples; memory grows as (n + m)^2.
        permutations: of the pooled rows; the p-value is a multiple of 1 / (permutations + 1).
        seed: of the permutations.

    Source: Gretton et al., A kernel two-sample test (2012).
    """
    pooled = np.concatenate([x, y])
    pooled = pooled - pooled.mean(axis=0)
    squares = np.sum(pooled**2, axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * pooled @ pooled.T, 0.0)
    bandwidth = np.median(distances[np.triu_indices(len(pooled), 1)])
    kernel = np.exp(-distances / max(bandwidth, np.finfo(float).tiny))
    weights = _permuted(len(x), len(y), permutations, seed)
    return _test(np.sum(weights * (kernel @ weights), axis=0))


def sliced_w2(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    permutations: int = 199,
    directions: int = 50,
    seed: int = 0,
) -> TwoSample:
    """Squared sliced W2 (mean over random directions of W2^2 in one dimension), squared data units.

    Args:
        x, y: the samples; the larger is cut to the size of the smaller.
        permutations: of the pooled rows.
        directions: how many.
        seed: of directions and permutations.

    Source: Bonneel et al., Sliced and Radon Wasserstein barycenters of measures (2015).
    """
    n = min(len(x), len(y))
    rng = np.random.default_rng(seed)
    lines = rng.standard_normal((x.shape[1], directions))
    lines /= np.linalg.norm(lines, axis=0)
    pooled = np.concatenate([x[:n], y[:n]]) @ lines
    order = np.argsort(pooled, axis=0)
    ranked = np.take_along_axis(pooled, order, axis=0)
    values = []
    for signs in _permuted(n, n, permutations, seed).T > 0:
        first = signs[order]  # which of the ranked rows belong to the first sample
        a = ranked.T[first.T].reshape(directions, n)
        b = ranked.T[~first.T].reshape(directions, n)
        values.append(np.mean((a - b) ** 2))
    return _test(np.array(values))


def _permuted(n: int, m: int, permutations: int, seed: int) -> Float[np.ndarray, "n+m p+1"]:
    """Columns of weights 1/n (first sample) and -1/m (second); column 0 is the given labelling."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    return np.column_stack([labels, *(rng.permutation(labels) for _ in range(permutations))])


def _test(values: Float[np.ndarray, " p+1"]) -> TwoSample:
    """The first value against the others."""
    p_value = float(np.mean(values >= values[0] * (1 - 1e-12)))
    return TwoSample(float(values[0]), float(values[1:].mean()), p_value)
