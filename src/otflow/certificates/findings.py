"""What is wrong with a flow, read off the lines of its certificate."""

import math
from collections.abc import Sequence

from otflow.certificates import certificate as names
from otflow.certificates.certificate import Line
from otflow.flow.normalisation import ABOVE_ONE

WIDTH = 0.1  # share of 1/2 E|T(x) - x|^2 above which optimality counts as not shown
BEND = 0.01  # share of E|T(x) - x|^2
ASYMMETRY = 0.02
LOG_DET = 1e-3  # nats, beyond the integration error
P_VALUE = 0.01  # each test: a clean flow is accused with this probability
GAP = 0.1  # of J_alpha


def findings(
    lines: Sequence[Line],
    moved: float,
    spread: float,
    invalid: int,
    checked: int,
    nll_error: float,
) -> tuple[str, ...]:
    """One sentence for everything that is wrong, or not shown; thresholds are this module's.

    Args:
        lines: all lines.
        moved: E|T(x) - x|^2, squared data units.
        spread: E|x - E x|^2; displacements below a thousandth of it count as that much.
        invalid, checked: rows not invertible, of how many.
        nll_error: mean integration error of the nll, nats.
    """
    moved = max(moved, 1e-3 * spread)
    by_name = {line.name: line for line in lines}

    def value(name: str) -> float:
        return by_name[name].value if name in by_name else math.nan

    found = []
    if invalid:
        found.append(f"not invertible at {invalid} of {checked} rows: no likelihood holds there")
    excess = 2 * _upper(by_name[names.EXCESS])
    if excess > WIDTH * moved:
        found.append(
            f"transport not shown optimal: up to {excess / moved:.0%} of its cost may be too much"
        )
    share = by_name[names.VIOLATIONS]
    if share.value > 0:
        found.append(
            f"not optimal: {share.value:.2%} of random pairs are not monotone "
            "(<T(x)-T(x'), x-x'> < 0)"
        )
    asymmetry = value(names.ASYMMETRY_OF_GRADIENT)
    if asymmetry > ASYMMETRY:
        found.append(f"not optimal: grad T is not symmetric (relative asymmetry {asymmetry:.2g})")
    smallest = value(names.SMALLEST)
    if smallest <= 0:
        found.append(f"grad T has an eigenvalue {smallest:.2g} <= 0: T folds or turns")
    total = by_name.get(names.INTEGRAL)
    low = total.interval[0] if total is not None and total.interval else None
    if total is not None and low is not None and low > ABOVE_ONE:
        found.append(f"no density: it integrates to {total.value:.3g}, the map folds off the rows")
    found += _path_findings(by_name[names.STRAIGHTNESS], moved)
    found += _law_findings(lines, value, nll_error)
    return tuple(found)


def _upper(line: Line) -> float:
    """The upper end of a line's interval, else its value."""
    high = line.interval[1] if line.interval else None
    return line.value if high is None else high


def _path_findings(straightness: Line, moved: float) -> list[str]:
    """Curved paths cost action that the endpoints do not need."""
    low = straightness.interval[0] if straightness.interval else None
    if low is None or not low > BEND * moved:
        return []
    return [
        f"paths are not straight: E int |v-(T(x)-x)|^2 dt is {straightness.value / moved:.0%} of "
        "E|T(x)-x|^2"
    ]


def _law_findings(lines: Sequence[Line], value, nll_error: float) -> list[str]:
    """Log-determinant, end-point law and J_alpha."""
    found = []
    error = value(names.LOG_DET_ERROR)
    if error > LOG_DET + 5 * nll_error:
        found.append(f"the reported log-determinant is wrong by {error:.2g} nats on average")
    if nll_error > 0.02:
        found.append(f"integration error {nll_error:.2g} nats in the nll: raise n_steps")
    for line in lines:
        if line.unit == names.OF_TESTS and line.value < P_VALUE:
            found.append(f"laws differ: {line.name} (p = {line.value:.2g})")
    objective = value(names.OBJECTIVE)
    gap = value(names.DUALITY_GAP)
    if gap > GAP * objective:
        found.append(
            f"J_alpha not shown optimal: {objective:.4g}, of which up to {gap:.2g} too much"
        )
    return found
