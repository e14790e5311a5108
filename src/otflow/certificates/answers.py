"""A certificate in five lines: the questions that people ask of it, answered from its lines."""

import math

from otflow.certificates.certificate import DENSITY, EXCESS, OPTIMAL, Certificate, Line
from otflow.certificates.findings import P_VALUE, WIDTH
from otflow.support.html import number

Answers = tuple[tuple[str, str], ...]


def answers(found: Certificate) -> Answers:
    """Question and answer: is the map optimal, how far at most, is the density right, the largest
    error, and what to change. What a certificate does not know is said to be unknown."""
    lines = {line.name: line for line in found.lines}
    return (
        ("Is the map optimal?", _optimal(found)),
        ("How far from optimal, at most?", _how_far(found)),
        ("Is the density right?", _density(found, lines)),
        ("What is the largest error?", _largest(found)),
        ("What to change?", _change(found)),
    )


def _optimal(found: Certificate) -> str:
    """No where a check refutes it; yes only where the bound proves it small."""
    if (against := found.denial(OPTIMAL)) is not None:
        return f"no: {against.partition(': ')[2]}"
    cost, excess = _bracket(found)
    share = _share(excess, cost)
    if math.isnan(share):
        return "unknown: there is no bound"
    if share > WIDTH:
        return "not shown: the bound is too wide to tell"
    return f"yes, up to the next line ({_label(excess)}), to where its own images end"


def _how_far(found: Certificate) -> str:
    cost, excess = _bracket(found)
    share = _share(excess, cost)
    if math.isnan(share):
        return f"1/2 W2^2 lies in [{number(found.lower)}, {number(found.upper)}]"
    assert cost is not None
    most, whole = number(share * cost.value), number(cost.value)
    return f"{most} of the cost {whole} ({share:.1%}), squared units of {found.space}"


def _density(found: Certificate, lines: dict[str, Line]) -> str:
    """Wrong where a check says so; else what the KL or the tests leave open."""
    if (wrong := found.denial(DENSITY)) is not None:
        return f"no: {wrong}"
    kl = lines.get("KL(T#rho0, target)")
    if kl is not None and kl.interval is not None and kl.interval[1] is not None:
        return (
            f"to {number(kl.interval[1])} nats: KL(T#rho0, target) is at most that ({_label(kl)})"
        )
    tests = [line.value for line in found.lines if line.unit == "p-value"]
    if not tests:
        return "unknown: no test was made"
    least = f"the smallest p-value of {len(tests)} tests is {min(tests):.2g}"
    return f"no difference was found, which is no proof: {least} (below {P_VALUE:g} it is told)"


def _largest(found: Certificate) -> str:
    largest = found.largest_error
    if largest is None:
        return "unknown: alpha was not given"
    return f"{largest.name}, {number(largest.value)} of J_alpha in its own units"


def _change(found: Certificate) -> str:
    largest = found.largest_error
    if largest is None:
        return "see the findings" if found.findings else "nothing that these checks know of"
    return largest.knob


def _bracket(found: Certificate) -> tuple[Line | None, Line | None]:
    """The bracket, which is the first line, and what may be too much of its cost."""
    excess = (line for line in found.lines if line.name in EXCESS)
    return next(iter(found.lines), None), next(excess, None)


def _share(excess: Line | None, cost: Line | None) -> float:
    """The most that may be too much, as a share of the cost."""
    ends = None if excess is None else excess.interval
    if cost is None or ends is None or ends[1] is None or not cost.value > 0:
        return math.nan
    return ends[1] / cost.value


def _label(line: Line | None) -> str:
    return "" if line is None else line.label
