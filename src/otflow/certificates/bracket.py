"""The bracket [L, U] of 1/2 W2^2 between the two ends of a map, from pairs (x, T(x)) (SPEC 6)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from otflow.certificates.bounds import known, lower_bound, upper_bound
from otflow.certificates.convex import ConvexPotential
from otflow.certificates.fitting import DualConfig, fit_dual, gaps
from otflow.support.checks import check_count, check_fraction, check_number, check_rows
from otflow.support.frames import check_names, names_of

_GAP_SHARE = 0.1  # of the lower bound's error rate: the gap varies least


def check_run(seconds: object, seed: object, confidence: object) -> None:
    """The options of every certificate: how long, how random and how sure.

    Raises:
        ValueError, TypeError: one is out of its range.
    """
    check_number("seconds", seconds, positive=True)
    check_count("seed", seed, 0)
    check_fraction("confidence", confidence)


@dataclasses.dataclass(frozen=True)
class Bracket:
    """1/2 W2^2(law of x, law of y) lies in [lower, upper].

    Attributes:
        lower, upper: squared data units; one-sided bounds of confidence (1 + confidence) / 2 each.
        confidence: of the two together.
        half_displacement: mean of 1/2 |y - x|^2, the upper bound before sampling error.
        gap: mean of u(x) + u*(y) - x'y, its distance from the lower bound before sampling error.
        excess: with probability `confidence`, 1/2 E|y - x|^2 is at most this much above 1/2 W2^2;
            an upper bound of the mean gap alone, free of the sampling error of half_displacement.
        n, n_gap: pairs behind half_displacement and gap.
        doubts: why lower or upper may not be called proved (`bounds.Bound.doubt`), and why excess
            may not; empty texts where they may.
    """

    lower: float
    upper: float
    confidence: float
    half_displacement: float
    gap: float
    excess: float
    n: int
    n_gap: int
    doubts: tuple[str, str] = ("", "")

    @property
    def relative_width(self) -> float:
        """(upper - lower) / upper."""
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0


def bracket(
    half_squared: Float[np.ndarray, " n"],
    gap: Float[np.ndarray, " k"] | None,
    confidence: float = 0.95,
) -> Bracket:
    """The bracket from 1/2 |y - x|^2 and the Fenchel gaps of a fixed convex u.

    U bounds the mean of 1/2 |y - x|^2 from above, since pairs are a coupling. Any convex u gives
    L = E[1/2 |x|^2 - u(x) + 1/2 |y|^2 - u*(y)] <= 1/2 W2^2 (Kantorovich), and on the pairs
    L = E[1/2 |y - x|^2] - E[u(x) + u*(y) - <x, y>]: a lower bound of the first mean less an upper
    bound of the second, whose terms are nonnegative and small where grad u ~ T. Both sides have
    error rate (1 - confidence) / 2; the lower one's is split between its two means.

    Args:
        half_squared: 1/2 |y - x|^2 of independent pairs, shape (n,).
        gap: bounds from above of u(x) + u*(y) - <x, y> at pairs u was not fitted to, shape (k,);
            None where it is zero everywhere, as for y = grad u(x).
        confidence: in (0, 1).

    Source: SPEC 6; assumptions of the confidence bounds in `bounds.Bound.doubt`.
    """
    tail = (1 - check_fraction("confidence", confidence)) / 2
    upper = upper_bound(half_squared, 1 - tail)
    low = lower_bound(half_squared, 1 - (1 - _GAP_SHARE) * tail)
    most, excess = known(0.0), known(0.0)
    if gap is not None:
        most = upper_bound(gap, 1 - _GAP_SHARE * tail)
        excess = upper_bound(gap, max(confidence, 0.5 + 1e-9))
    in_gap = f"dual gap: {excess.doubt}" if excess.doubt else ""
    return Bracket(
        lower=max(low.value - most.value, 0.0),
        upper=max(upper.value, 0.0),
        confidence=confidence,
        half_displacement=float(np.mean(half_squared)),
        gap=0.0 if gap is None else float(np.mean(gap)),
        excess=max(excess.value, 0.0),
        n=len(half_squared),
        n_gap=0 if gap is None else len(gap),
        doubts=(upper.doubt or low.doubt or in_gap, in_gap),
    )


def bracket_pairs(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "n d"],
    *,
    config: DualConfig | None = None,
    seconds: float = 60.0,
    seed: int = 0,
    confidence: float = 0.95,
) -> Bracket:
    """The bracket of 1/2 W2^2 from any coupled pairs: a flow's, or those of another map.

    The rows are shuffled; u is fitted to one half and evaluated on the other. 1/2 |y - x|^2, which
    does not depend on u, is averaged over all rows.

    Args:
        x, y: independent pairs, shape (n, d) each, n >= 4.
        config: how hard to fit u.
        seconds: most time to spend fitting.
        seed: of the shuffle and the fit.
        confidence: of the bracket.

    Raises:
        ValueError, TypeError: shapes that disagree, numbers that are not finite, or out of range.
    """
    check_names("y", y, names_of(x))
    x, y = check_rows("x", x, least=4), check_rows("y", y, least=4)
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {x.shape}; got {y.shape}.")
    check_run(seconds, seed, confidence)
    config = DualConfig() if config is None else config
    order = np.random.default_rng(seed).permutation(len(x))
    fit, rest = order[: len(x) // 2], order[len(x) // 2 :]
    u: ConvexPotential = fit_dual(x[fit], y[fit], config, seconds, seed)
    half_squared = 0.5 * np.sum((y - x) ** 2, axis=1)
    return bracket(half_squared, gaps(u, x[rest], y[rest], config), confidence)
