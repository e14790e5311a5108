"""What is wrong with a flow, from what was measured of it."""

import dataclasses

from otflow.certificates.penalty import PenaltyGap
from otflow.certificates.two_sample import TwoSample
from otflow.flow.normalisation import Integral

WIDTH = 0.1  # share of 1/2 E|T(x) - x|^2 above which optimality counts as not shown
BEND = 0.01  # share of E|T(x) - x|^2
ASYMMETRY = 0.02
LOG_DET = 1e-3  # nats, beyond the integration error
P_VALUE = 0.01  # each test: a clean flow is accused with this probability
GAP = 0.1  # of J_alpha


# how sentences begin that deny optimality, or the density
NOT_OPTIMAL = "not optimal: "
_NOT_INVERTIBLE, _NO_DENSITY, _DIFFER = "not invertible", "no density: ", "laws differ: "
_LOG_DET = "the reported log-determinant"
NO_LIKELIHOOD = (_DIFFER, _NO_DENSITY, _LOG_DET, _NOT_INVERTIBLE)


@dataclasses.dataclass(frozen=True)
class Facts:
    """What accuses a flow, or does not.

    Attributes:
        invalid, checked: rows not invertible, of how many.
        moved: E|T(x) - x|^2, squared data units.
        spread: E|x - E x|^2; displacements below a thousandth of it count as that much.
        excess: at most so much of 1/2 E|T(x) - x|^2 is more than 1/2 W2^2.
        violations, pairs: random pairs that are not monotone, of how many.
        smallest: eigenvalue of the symmetric part of grad T.
        asymmetry: of grad T, root mean square.
        bend, bend_low: E int |v - (T(x) - x)|^2 dt, and its lower end.
        log_det_error: of the reported log-determinant, nats.
        nll_error: mean integration error of the nll, nats.
        integral: of the density, None where it is one by construction.
        tests: of equal laws, by their names, on `tested` rows a side.
        penalty: J_alpha and its gap, where they are known.
    """

    invalid: int
    checked: int
    moved: float
    spread: float
    excess: float
    violations: int
    pairs: int
    smallest: float
    asymmetry: float
    bend: float
    bend_low: float
    log_det_error: float
    nll_error: float
    integral: Integral | None
    tests: dict[str, TwoSample]
    tested: int
    penalty: PenaltyGap | None


def findings(facts: Facts) -> tuple[str, ...]:
    """One sentence for everything that is wrong, or not shown; thresholds are this module's."""
    return (*_map_findings(facts), *_path_findings(facts), *_law_findings(facts))


def _map_findings(facts: Facts) -> list[str]:
    """Bijection, optimality, monotonicity and the mass of the density."""
    found = []
    if facts.invalid:
        found.append(not_invertible(facts.invalid, facts.checked))
    moved, excess = _moved(facts), 2 * facts.excess
    if excess > WIDTH * moved:
        found.append(not_shown(excess / moved))
    if facts.violations > 0:
        found.append(
            f"{NOT_OPTIMAL}{facts.violations / facts.pairs:.2%} of random pairs are not monotone "
            "(<T(x)-T(x'), x-x'> < 0)"
        )
    if facts.asymmetry > ASYMMETRY:
        found.append(
            f"{NOT_OPTIMAL}grad T is not symmetric (relative asymmetry {facts.asymmetry:.2g})"
        )
    if facts.smallest <= 0:
        found.append(f"grad T has an eigenvalue {facts.smallest:.2g} <= 0: T folds or turns")
    if facts.integral is not None and facts.integral.above_one:
        total = facts.integral.mean
        found.append(f"{_NO_DENSITY}it integrates to {total:.3g}, the map folds off the rows")
    return found


def _path_findings(facts: Facts) -> list[str]:
    """Curved paths cost action that the endpoints do not need."""
    moved = _moved(facts)
    if not facts.bend_low > BEND * moved:
        return []
    return [
        f"paths are not straight: E int |v-(T(x)-x)|^2 dt is {facts.bend / moved:.0%} of "
        "E|T(x)-x|^2"
    ]


def _law_findings(facts: Facts) -> list[str]:
    """Log-determinant, end-point law and J_alpha."""
    found = []
    if facts.log_det_error > LOG_DET + 5 * facts.nll_error:
        found.append(f"{_LOG_DET} is wrong by {facts.log_det_error:.2g} nats on average")
    if facts.nll_error > 0.02:
        found.append(f"integration error {facts.nll_error:.2g} nats in the nll: raise n_steps")
    for name, test in facts.tests.items():
        if test.p_value < P_VALUE:
            found.append(f"{_DIFFER}{name} (p = {test.p_value:.2g})")
    known = facts.penalty
    if known is not None and known.gap > GAP * known.objective:
        found.append(
            f"J_alpha not shown optimal: {known.objective:.4g}, of which up to {known.gap:.2g} "
            "too much"
        )
    return found


def not_invertible(invalid: int, checked: int) -> str:
    """Of rows without an inverse."""
    return f"{_NOT_INVERTIBLE} at {invalid} of {checked} rows: no likelihood holds there"


def not_shown(share: float) -> str:
    """Of a bracket too wide to tell, `share` of the cost."""
    return f"transport not shown optimal: up to {share:.0%} of its cost may be too much"


def _moved(facts: Facts) -> float:
    return max(facts.moved, 1e-3 * facts.spread)
