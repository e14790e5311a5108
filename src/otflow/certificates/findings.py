"""What is wrong with a flow, from what was measured of it."""

import dataclasses

from otflow.certificates.certificate import DENSITY, OPTIMAL, Finding
from otflow.certificates.penalty import PenaltyGap
from otflow.certificates.two_sample import TwoSample
from otflow.flow.normalisation import Integral

WIDTH = 0.1  # share of 1/2 E|T(x) - x|^2 above which optimality counts as not shown
BEND = 0.01  # share of E|T(x) - x|^2
ASYMMETRY = 0.02
LOG_DET = 1e-3  # nats, beyond the integration error
P_VALUE = 0.01  # each test: a clean flow is accused with this probability
GAP = 0.1  # of J_alpha


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


def findings(facts: Facts) -> tuple[Finding, ...]:
    """A sentence for everything that is wrong, or not shown; thresholds are this module's."""
    return (*_map_findings(facts), *_path_findings(facts), *_law_findings(facts))


def _map_findings(facts: Facts) -> list[Finding]:
    """Bijection, optimality, monotonicity and the mass of the density."""
    found = []
    if facts.invalid:
        found.append(not_invertible(facts.invalid, facts.checked))
    moved, excess = _moved(facts), 2 * facts.excess
    if excess > WIDTH * moved:
        found.append(not_shown(excess / moved))
    if facts.violations > 0:
        share = f"{facts.violations / facts.pairs:.2%} of random pairs"
        told = f"not optimal: {share} are not monotone (<T(x)-T(x'), x-x'> < 0)"
        found.append(Finding(told, OPTIMAL))
    if facts.asymmetry > ASYMMETRY:
        size = f"(relative asymmetry {facts.asymmetry:.2g})"
        found.append(Finding(f"not optimal: grad T is not symmetric {size}", OPTIMAL))
    if facts.smallest <= 0:
        told = f"grad T has an eigenvalue {facts.smallest:.2g} <= 0: T folds or turns"
        found.append(Finding(told))
    if facts.integral is not None and facts.integral.above_one:
        told = f"it integrates to {facts.integral.mean:.3g}, the map folds off the rows"
        found.append(Finding(f"no density: {told}", DENSITY))
    return found


def _path_findings(facts: Facts) -> list[Finding]:
    """Curved paths cost action that the endpoints do not need."""
    moved = _moved(facts)
    if not facts.bend_low > BEND * moved:
        return []
    share = f"{facts.bend / moved:.0%} of E|T(x)-x|^2"
    return [Finding(f"paths are not straight: E int |v-(T(x)-x)|^2 dt is {share}")]


def _law_findings(facts: Facts) -> list[Finding]:
    """Log-determinant, end-point law and J_alpha."""
    found = []
    if facts.log_det_error > LOG_DET + 5 * facts.nll_error:
        told = f"is wrong by {facts.log_det_error:.2g} nats on average"
        found.append(Finding(f"the reported log-determinant {told}", DENSITY))
    if facts.nll_error > 0.02:
        told = f"integration error {facts.nll_error:.2g} nats in the nll: raise n_steps"
        found.append(Finding(told))
    for name, test in facts.tests.items():
        if test.p_value < P_VALUE:
            found.append(Finding(f"laws differ: {name} (p = {test.p_value:.2g})", DENSITY))
    known = facts.penalty
    if known is not None and known.gap > GAP * known.objective:
        told = f"{known.objective:.4g}, of which up to {known.gap:.2g} too much"
        found.append(Finding(f"J_alpha not shown optimal: {told}"))
    return found


def not_invertible(invalid: int, checked: int) -> Finding:
    """Of rows without an inverse."""
    told = f"not invertible at {invalid} of {checked} rows: no likelihood holds there"
    return Finding(told, DENSITY)


def not_shown(share: float) -> Finding:
    """Of a bracket too wide to tell, `share` of the cost."""
    return Finding(f"transport not shown optimal: up to {share:.0%} of its cost may be too much")


def _moved(facts: Facts) -> float:
    return max(facts.moved, 1e-3 * facts.spread)
