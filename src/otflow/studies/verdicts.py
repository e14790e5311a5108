"""What numbers with errors say about a claim: it holds, it is violated, or they cannot tell."""

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from otflow.support.checks import check_fraction, read_numbers

Verdict = Literal["holds", "violated", "not resolved"]
_VERDICTS = ("holds", "violated", "not resolved")


@dataclasses.dataclass(frozen=True)
class Statement:
    """A claim of the theory, what the numbers say about it, and which numbers.

    Raises:
        ValueError: a verdict that is none.
    """

    claim: str
    verdict: Verdict
    evidence: str

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise ValueError(f"verdict: expected one of {_VERDICTS}; got {self.verdict!r}.")

    def to_dict(self) -> dict[str, str]:
        """Claim, verdict and evidence for JSON."""
        return dataclasses.asdict(self)


def verdict_at_least(
    means: ArrayLike, standard_errors: ArrayLike, confidence: float = 0.95, slack: float = 0.0
) -> Verdict:
    """Whether all true means are >= -slack, by one-sided normal bounds at once (Bonferroni).

    Holds where every lower bound is >= -slack; violated where some upper bound is < -slack, also
    if other means are NaN; else not resolved. Means that are exactly -slack are never resolved
    unless their standard error is 0: give slack.

    Args:
        means: (k,); NaN where unknown.
        standard_errors: (k,), >= 0; NaN or infinite where unknown.
        confidence: that all bounds are right, in (0, 1).
        slack: >= 0.

    Raises:
        ValueError, TypeError: an argument is not as said.
    """
    check_fraction("confidence", confidence)
    found = read_numbers("means", means, 1)
    errors = read_numbers("standard_errors", standard_errors, 1)
    if not found.size or found.shape != errors.shape:
        raise ValueError(
            f"means, standard_errors: expected k >= 1 each; got {found.size}, {errors.size}."
        )
    if (errors < 0).any():
        raise ValueError(f"standard_errors: expected numbers >= 0; got {errors.min()}.")
    allowed = float(read_numbers("slack", slack, 0))
    if not 0 <= allowed < math.inf:
        raise ValueError(f"slack: expected a finite number >= 0; got {slack}.")
    known = np.isfinite(found) & np.isfinite(errors)
    reach = ndtri(1 - (1 - confidence) / found.size) * errors[known]
    if (found[known] + reach < -allowed).any():
        return "violated"
    return "holds" if known.all() and (found - reach >= -allowed).all() else "not resolved"
