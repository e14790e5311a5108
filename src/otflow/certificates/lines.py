"""The lines of a certificate, each made from what was measured."""

import math

import numpy as np
from jaxtyping import Float

from otflow.certificates.bounds import ASSUMPTION, lower_bound, share_interval, upper_bound
from otflow.certificates.bracket import Bracket
from otflow.certificates.certificate import ESTIMATED, Line, proved
from otflow.certificates.geometry import JacobianFacts
from otflow.certificates.penalty import PenaltyGap
from otflow.certificates.sampling import Pushed
from otflow.certificates.two_sample import TwoSample
from otflow.flow.normalisation import Integral

SQUARED = "squared data units"


def labelled(confidence: float, text: str, *doubts: str) -> tuple[str, str]:
    """The label of a bound, and its explanation with the doubts that keep it from being proved."""
    said = "; ".join(dict.fromkeys(filter(None, doubts)))
    if not said:
        return proved(confidence), text
    return ESTIMATED, f"{text}; estimated only, since {said}"


def _fold(integral: Integral | None) -> str:
    """What a map that may fold leaves open; None where it cannot."""
    return "" if integral is None else f"the map may fold, and its density sums to {integral}"


def transport_lines(
    found: Bracket, own: bool = False, what: str = "1/2 W2^2(rho0, T#rho0)"
) -> list[Line]:
    """The bracket of `what`, and its width; `own`: the dual potential is the flow's."""
    u = "the flow's own convex potential" if own else "an input-convex u"
    n = f"{found.n} rows" + ("" if own else f", u on {found.n_gap} it was not fitted to")
    whole, in_gap = found.doubts
    label, text = labelled(
        found.confidence,
        "value: 1/2 E|T(x)-x|^2, the cost of the flow's coupling; interval: from Kantorovich's "
        f"dual with {u} to that cost, one-sided bounds, {n}; assumes {ASSUMPTION}",
        whole,
    )
    excess_label, excess_text = labelled(
        found.confidence,
        f"1/2 E|T(x)-x|^2 - {what}: E[u(x) + u*(T(x)) - <x, T(x)>] bounds it, "
        f"at most {_share(found.excess, found.half_displacement)} of the cost",
        in_gap,
    )
    width = (
        f"of the bracket; {_share(found.gap, found.half_displacement)} are the dual gap, the rest "
        "is sampling"
    )
    ends = (found.lower, found.upper)
    most = (0.0, found.relative_width)
    return [
        Line(what, found.half_displacement, ends, label, SQUARED, text),
        Line("relative width (U-L)/U", found.relative_width, most, label, "1", width),
        Line(
            "excess transport", found.gap, (0.0, found.excess), excess_label, SQUARED, excess_text
        ),
    ]


def mean_line(
    name: str,
    values: Float[np.ndarray, " n"],
    unit: str,
    text: str,
    confidence: float,
    *doubts: str,
) -> Line:
    """A mean with its two-sided interval; `doubts` of it beside those of its bounds."""
    level = (1 + confidence) / 2
    low, high = lower_bound(values, level), upper_bound(values, level)
    label, text = labelled(confidence, text, *doubts, low.doubt, high.doubt)
    return Line(name, float(np.mean(values)), (low.value, high.value), label, unit, text)


def path_lines(pushed: Pushed, exact: bool, confidence: float) -> list[Line]:
    """Straightness and hjb; `exact` where the transport has no integration error."""
    bend = pushed.straightness
    share = _share(bend.mean(), 2 * pushed.half_squared.mean())
    lines = [
        mean_line(
            "straightness",
            bend,
            SQUARED,
            "E int |v - (T(x)-x)|^2 dt = E[2 transport - |T(x)-x|^2]: zero for straight lines at "
            f"constant speed; {share} of E|T(x)-x|^2",
            confidence,
            "" if exact else "the time integration has an error",
        )
    ]
    if pushed.hjb is not None:
        text = "E int |d_t Phi - 1/2 |grad Phi|^2| dt: zero at the optimum"
        nodes = "it is taken at the scheme's nodes"
        lines.append(mean_line("hjb", pushed.hjb, SQUARED, text, confidence, nodes))
    return lines


def monotonicity_lines(
    count: int, pairs: int, facts: JacobianFacts, confidence: float
) -> list[Line]:
    """Is T the gradient of a convex function? `count` of the `pairs` say no."""
    low, high = share_interval(count, pairs, confidence)
    k = len(facts.smallest)
    return [
        Line(
            "monotonicity violations",
            count / pairs,
            (low, high),
            proved(confidence),
            "share of pairs",
            f"<T(x)-T(x'), x-x'> < 0 in {count} of {pairs} disjoint random pairs; an optimal map "
            "has none; Clopper-Pearson interval",
        ),
        Line(
            "smallest eigenvalue of grad T",
            float(facts.smallest.min()),
            None,
            ESTIMATED,
            "1",
            f"of the symmetric part, automatic differentiation at {k} rows; median "
            f"{np.median(facts.smallest):.3g}; positive where T is strictly monotone",
        ),
        Line(
            "asymmetry of grad T",
            facts.rms_asymmetry,
            None,
            ESTIMATED,
            "1",
            f"root mean square of |J-J'|/|J+J'| at {k} rows: zero for a gradient, as an optimal "
            "map is",
        ),
    ]


def log_det_line(difference: Float[np.ndarray, " n"], nll_error: float) -> Line:
    """The flow's log-determinant against that of the Jacobian."""
    worst = float(np.max(difference)) if len(difference) else math.nan
    return Line(
        "log-determinant error",
        float(np.mean(difference)) if len(difference) else math.nan,
        None,
        ESTIMATED,
        "nats",
        f"mean |reported - slogdet of the automatic Jacobian| at {len(difference)} rows, largest "
        f"{worst:.2g}; integration error by step doubling: {nll_error:.2g}",
    )


def invalid_line(invalid: int, checked: int, confidence: float) -> Line:
    """Rows without an invertible step."""
    return Line(
        "rows not invertible",
        invalid / checked,
        share_interval(invalid, checked, confidence),
        proved(confidence),
        "share of rows",
        f"{invalid} of {checked} rows; they stay in the bracket and in the two-sample tests (T is "
        "a map there too), and no likelihood figure holds at them",
    )


def integral_line(found: Integral | None, confidence: float) -> Line:
    """The integral of the density; None where every step is a bijection."""
    name = "integral of the density"
    if found is None:
        text = "every step of the map is a bijection of the whole space, by construction"
        return Line(name, 1.0, (1.0, 1.0), proved(confidence), "1", text)
    return Line(
        name,
        found.mean,
        found.interval,
        ESTIMATED,
        "1",
        "importance sampling from the flow's own samples and the widened law of the rows: above 1 "
        "where the map folds, and every log-density is then too high by up to its logarithm",
    )


def distance_lines(
    kl: Float[np.ndarray, " n"] | None,
    invalid: int,
    controlled: bool,
    normal: bool,
    integral: Integral | None,
    confidence: float,
) -> list[Line]:
    """KL(T#rho0, target), and W2 <= sqrt(2 KL) where the target is N(0, I) (`normal`).

    `kl` holds log-ratios, None where they are not known. They are those of a density only where
    the map does not fold.
    """
    if kl is None or invalid:
        why = (
            "needs the entropy or the density of rho0"
            if kl is None
            else f"{invalid} rows are not invertible: the KL is not finite there"
        )
        return [_no_distance(why)]
    how = "E[r - 1 + exp(-r)]" if controlled else "E[r]"
    line = mean_line(
        "KL(T#rho0, target)",
        kl,
        "nats",
        f"{how}, r = log rho0 + nll; relies on the flow's log-determinant, checked below",
        confidence,
        _fold(integral),
    )
    if not normal:
        return [line, _no_distance("Talagrand's inequality is for N(0, I), the target is another")]
    high = max(line.interval[1] or 0.0, 0.0) if line.interval else math.nan
    bound = Line(
        "W2(T#rho0, target)",
        math.sqrt(2 * max(line.value, 0.0)),
        (0.0, math.sqrt(2 * high)),
        line.label,
        "data units",
        "Talagrand's inequality for N(0, I): W2 <= sqrt(2 KL)",
    )
    return [line, bound]


def _no_distance(why: str) -> Line:
    return Line("W2(T#rho0, target)", math.nan, None, ESTIMATED, "data units", why)


def test_lines(tests: dict[str, TwoSample], rows: int) -> list[Line]:
    """Two-sample tests, the p-value in `value`."""
    return [
        Line(
            name,
            found.p_value,
            None,
            ESTIMATED,
            "p-value",
            f"permutation test on {rows} rows a side (exact level for rows the flow was not "
            f"trained on); statistic {found.statistic:.3g}, {found.expected:.3g} under equal laws",
        )
        for name, found in tests.items()
    ]


def penalty_lines(
    found: PenaltyGap | None, alpha: float | None, integral: Integral | None, confidence: float
) -> list[Line]:
    """J_alpha, the dual bound of J*_alpha, and the gap; nothing where they are not known."""
    if found is None:
        return []
    of_objective, of_lower, of_gap = found.doubts
    relies = "relies on the flow's log-determinant"
    stated = (
        (
            "J_alpha of the flow",
            found.objective,
            found.objective_interval,
            f"transport + alpha KL at alpha = {alpha:g}; {relies}",
            (_fold(integral), of_objective),
        ),
        (
            "J*_alpha, lower bound",
            found.lower,
            (found.lower, None),
            "dual value at psi(y) = 1/2|y|^2 - w(y), w input-convex; does not rely on the flow",
            (of_lower,),
        ),
        (
            "duality gap of J_alpha",
            found.gap,
            (0.0, max(found.gap, 0.0)),
            f"J_alpha - J*_alpha is at most this, from paired differences; {relies}",
            (_fold(integral), of_gap),
        ),
    )
    lines = []
    for name, value, ends, text, doubts in stated:
        label, text = labelled(confidence, text, *doubts)
        lines.append(Line(name, value, ends, label, SQUARED, text))
    return lines


def _share(part: float, whole: float) -> str:
    """part / whole in percent; nothing sensible where nothing moves."""
    return f"{part / whole:.2%}" if whole > 1e-12 else "(nothing moves)"
