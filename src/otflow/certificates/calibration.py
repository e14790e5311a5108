"""Is a density calibrated? Shares of rows in its own regions, and ranks of every column."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from otflow.certificates.bounds import share_interval

LEVELS = (0.5, 0.9)
_CONFIDENCE = 0.99  # two levels are looked at, and a miss is a finding


class Coverage(NamedTuple):
    """The share of rows in the region of highest density that should hold `level` of them.

    The interval is Clopper and Pearson's (99 %), wider by what the region's own draws add.
    """

    level: float
    share: float
    interval: tuple[float, float]

    @property
    def consistent(self) -> bool:
        """The level lies in the interval."""
        return self.interval[0] <= self.level <= self.interval[1]


def coverages(
    log_prob: Float[np.ndarray, " n"], drawn: Float[np.ndarray, "m *n"]
) -> tuple[Coverage, ...]:
    """Coverage at `LEVELS` of regions of highest density, from draws of the density.

    Args:
        log_prob: of the rows; -inf is outside of every region.
        drawn: log-densities of draws, (m,) one set for all rows; or (m, n), of each row's own
            condition: m + 1 times a level is then a whole number, and coverage exact.
    """
    n, m = len(log_prob), len(drawn)
    if drawn.ndim == 1:
        above = m - np.searchsorted(np.sort(drawn), log_prob, side="right")
        wider = np.sqrt(1 + n / m)
    else:
        above, wider = (drawn > log_prob).sum(axis=0), 1.0
    found = []
    for level in LEVELS:
        count = int(((above < level * (m + 1)) & np.isfinite(log_prob)).sum())
        share, (low, high) = count / n, share_interval(count, n, _CONFIDENCE)
        ends = max(share - wider * (share - low), 0.0), min(share + wider * (high - share), 1.0)
        found.append(Coverage(level, share, ends))
    return tuple(found)


def marginal_p_values(
    x: Float[np.ndarray, "n d"], drawn: Float[np.ndarray, "m *n d"], seed: int = 0
) -> Float[np.ndarray, " d"]:
    """Kolmogorov and Smirnov's p-value of every column: rows against draws, or against uniform.

    Args:
        x: rows.
        drawn: draws for all rows, (m, d); or for each row's own condition, (m, n, d): then ranks
            among them, ties and ends broken at random, are uniform where the density is right.
        seed: of that.
    """
    if drawn.ndim == 2:
        pairs = zip(x.T, drawn.T, strict=True)
        return np.array([stats.ks_2samp(a, b, method="asymp").pvalue for a, b in pairs])
    ranks = (drawn < x).sum(axis=0) + np.random.default_rng(seed).random(x.shape)
    return np.array([stats.kstest(r / (len(drawn) + 1), "uniform").pvalue for r in ranks.T])
