"""The alpha study's table and statements, from its saved cells alone."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from otflow.studies.cell import Cell
from otflow.studies.rates import Rate, fit_rate, slope_claim, verdict_slope
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    Series,
    StudyResult,
    above_minimum,
    groups,
    make_series,
    replicates,
    verdict_equal,
    with_gap,
)
from otflow.studies.verdicts import Statement, verdict_at_least
from otflow.support.html import plus_minus
from otflow.support.statistics import Z95

_MOST_EXCESS = 0.1  # of 1/2 W2^2 - J*, up to which a flow's own gap leaves the rates readable
_RECOVERY = 0.01  # relative tolerance of the recovery sequence
_SLOPES = (
    ("kl", "KL falls like alpha^-2", -2.0, 0.2),
    ("value_gap", "1/2 W2^2 - J falls like alpha^-1", -1.0, 0.15),
    ("ot_error", "the map's distance to the OT map falls like alpha^-1", -1.0, 0.2),
    ("limit_error", "transport + 2 alpha KL approaches 1/2 W2^2 like alpha^-2", -2.0, 0.2),
)
_COLUMNS = (
    "alpha",
    "transport",
    "kl",
    "objective",
    "exact_objective",
    "exact_kl",
    "limit_estimate",
    "map_error",
    "ot_error",
    "invalid",
)
_DATA_COLUMNS = ("alpha", "transport", "nll", "objective", "invalid")


def summarise_alpha(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of an alpha study."""
    grouped = groups([c for c in cells if c.id != "recovery"], "alpha")
    exact = bool(grouped) and "exact_kl" in next(iter(grouped.values())).cells[0].values
    if exact:
        for group in grouped.values():
            group.cells = [_extended(cell) for cell in group.cells]
    rows = [_row(alpha, group, exact) for alpha, group in grouped.items()]
    statements = _comparisons(grouped, exact)
    series: list[Series] = []
    if exact:
        found, series = _rates(grouped)
        statements += [*found, *_recovery(cells)]
    else:
        series = [make_series(n, grouped, n) for n in ("transport", "nll")]
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS if exact else _DATA_COLUMNS,
        rows=rows,
        statements=statements,
        series=series,
        x_name="alpha",
    )


def _extended(cell: Cell) -> Cell:
    """The cell with J - J*, 1/2 W2^2 - J and |transport + 2 alpha KL - 1/2 W2^2|."""
    v = with_gap(cell).values
    v["value_gap"] = v["exact_half_w2_squared"] - v["exact_objective"] - v["gap"]
    v["value_gap_se"] = v["gap_se"]
    if "gap" in cell.values:  # J = J* + (J - J*) has little noise, and so has what follows from it
        alpha, value = cell.inputs["alpha"], v["exact_objective"] + v["gap"]
        v["limit_estimate"] = 2 * value - v["transport"]
        v["limit_estimate_se"] = math.hypot(2 * v["gap_se"], v["transport_se"])
        noise = math.hypot(v["gap_se"], v["transport_se"]) / alpha
        if noise < v["kl_se"]:
            v["kl"], v["kl_se"] = (value - v["transport"]) / alpha, noise
    v["limit_error"] = abs(v["limit_estimate"] - v["exact_half_w2_squared"])
    v["limit_error_se"] = v["limit_estimate_se"]
    return dataclasses.replace(cell, values=v)


def _row(alpha: float, group: Group, exact: bool) -> dict[str, float]:
    row = {"alpha": alpha, "replicates": len(group.cells)}
    names = ["transport", "objective", *(("kl",) if exact else ("nll",))]
    if exact:
        names += ["limit_estimate", "map_error", "ot_error"]
    for name in names:
        row[name], row[f"{name}_error"] = group.mean(name), group.error(name)
    row["invalid"] = float(group.values("invalid").sum())
    if exact:
        known = group.cells[0].values
        row |= {name: known[name] for name in ("exact_objective", "exact_kl", "exact_transport")}
        row["half_w2_squared"] = known["exact_half_w2_squared"]
        row["alpha_kl"] = alpha * row["kl"]
        row["bound"] = row["half_w2_squared"] - row["transport"]
    return row


def _comparisons(grouped: dict[float, Group], exact: bool) -> list[Statement]:
    """Monotonicity, bounds and concavity: inequalities between neighbours or with exact values."""
    penalty = "kl" if exact else "nll"
    statements = [
        _monotone("transport increases with alpha", grouped, "transport", +1),
        _monotone(f"{'KL' if exact else 'nll'} decreases with alpha", grouped, penalty, -1),
        _concave(grouped, penalty),
    ]
    if not exact:
        return statements
    statements.insert(2, _monotone("J increases with alpha", grouped, "objective", +1))
    parts = list(grouped.values())
    invalid = sum(g.values("invalid").sum() for g in parts)
    claim = "J <= 1/2 W2^2, that is alpha KL <= 1/2 W2^2 - transport"
    slack, errors = [g.mean("value_gap") for g in parts], [g.error("value_gap") for g in parts]
    i = int(np.argmin(slack))
    where = f"alpha = {list(grouped)[i]:g}"
    text = f"smallest slack {slack[i]:.2e} +- {Z95 * errors[i]:.1e} at {where}"
    verdict = verdict_at_least(slack, errors)
    if invalid > 0:
        verdict = NOT_RESOLVED
        text = f"{invalid:g} points at which a flow is not invertible: J is infinite there"
    statements.append(Statement(claim, verdict, text))
    return [*statements, above_minimum("J >= J*_alpha", grouped, "alpha")]


def _monotone(claim: str, grouped: dict[float, Group], name: str, sign: int) -> Statement:
    parts = list(grouped.items())
    if len(parts) < 2:
        return Statement(claim, NOT_RESOLVED, "one alpha only")
    pairs = [(a, b) for (_, a), (_, b) in itertools.pairwise(parts)]
    steps = [sign * (b.mean(name) - a.mean(name)) for a, b in pairs]
    errors = [math.hypot(a.error(name), b.error(name)) for a, b in pairs]
    i = int(np.argmin(np.array(steps) / np.maximum(errors, 1e-300)))
    evidence = (
        f"least certain step {sign * steps[i]:+.2e} +- {Z95 * errors[i]:.1e}, "
        f"alpha {parts[i][0]:g} to {parts[i + 1][0]:g}"
    )
    return Statement(claim, verdict_at_least(steps, errors), evidence)


def _concave(grouped: dict[float, Group], penalty: str) -> Statement:
    """The envelope identity dJ*/dalpha = KL between neighbours: J is concave with that slope.

    KL(b) (b - a) <= J(b) - J(a) <= KL(a) (b - a); with J = transport + alpha KL these are
    transport(b) - transport(a) >= a (KL(a) - KL(b)) and <= b (KL(a) - KL(b)).
    """
    label = "KL" if penalty == "kl" else "nll"
    claim = f"envelope: dJ/dalpha = {label}, bracketed between neighbours"
    parts = list(grouped.items())
    if len(parts) < 2:
        return Statement(claim, NOT_RESOLVED, "one alpha only")
    slack, errors, where = [], [], []
    for (a, low), (b, high) in itertools.pairwise(parts):
        rise = high.mean("transport") - low.mean("transport")
        fall = low.mean(penalty) - high.mean(penalty)
        noise = math.hypot(low.error("transport"), high.error("transport"))
        other = math.hypot(low.error(penalty), high.error(penalty))
        slack += [rise - a * fall, b * fall - rise]
        errors += [math.hypot(noise, a * other), math.hypot(noise, b * other)]
        where += [f"{a:g} to {b:g}"] * 2
    i = int(np.argmin(np.array(slack) / np.maximum(errors, 1e-300)))
    evidence = f"smallest slack {slack[i]:.2e} +- {Z95 * errors[i]:.1e}, alpha {where[i]}"
    return Statement(claim, verdict_at_least(slack, errors), evidence)


def _rates(grouped: dict[float, Group]) -> tuple[list[Statement], list[Series]]:
    """The rates, each over the alphas at which it is not hidden by the flows' own gap or noise."""
    statements, series = [], []
    for name, claim, expected, tolerance in _SLOPES:
        kept, note = _usable(grouped, name)
        claim = slope_claim(claim, expected, tolerance)
        exact = [_exact_value(name, alpha, g) for alpha, g in grouped.items()]
        drawn = make_series(name, grouped, name, exact)
        if len(kept) < 3:
            text = f"fewer than three alphas can be used{note}"
            statements.append(Statement(claim, NOT_RESOLVED, text))
        else:
            rate = _fit(kept, name)
            slope = _exact_slope(kept, name)
            told = "" if slope is None else f"; {_against_exact(rate, slope)}"
            text = rate.text + told + note
            statements.append(Statement(claim, verdict_slope(rate, expected, tolerance), text))
            drawn = dataclasses.replace(
                drawn, slope=rate.slope, intercept=rate.intercept, exact_slope=slope
            )
        series.append(dataclasses.replace(drawn, expected=expected))
    return statements, series


def _usable(grouped: dict[float, Group], name: str) -> tuple[dict[float, Group], str]:
    """Alphas at which a rate can be read, and in words why the others are left out.

    The optimiser's gap J - J* must be small against what the exact minimiser leaves, the flows
    invertible wherever they were measured, and the noise below the exact value.
    """
    kept, dropped = {}, []
    for alpha, group in grouped.items():
        known = group.cells[0].values
        room = known["exact_half_w2_squared"] - known["exact_objective"]
        value = _exact_value(name, alpha, group)
        scale = value if name == "limit_error" else room
        excess = group.mean("gap")
        invalid = group.values("invalid").sum()
        if invalid > 0:
            dropped.append(f"{alpha:g} (not invertible at {invalid:g} points)")
        elif not excess <= _MOST_EXCESS * scale:
            dropped.append(f"{alpha:g} (J - J* is {_share(excess, scale)} what is left)")
        elif Z95 * group.error(name) > value:
            dropped.append(f"{alpha:g} (noise)")
        else:
            kept[alpha] = group
    return kept, f"; left out: alpha = {', '.join(dropped)}" if dropped else ""


def _share(part: float, whole: float) -> str:
    """How much of the whole, in words."""
    if whole <= 0:
        return "all of"
    return f"{part / whole:,.0f} times" if part > 10 * whole else f"{100 * part / whole:.0f} % of"


def _fit(grouped: dict[float, Group], name: str) -> Rate:
    noise = [g.noise(name) for g in grouped.values()]
    return fit_rate(list(grouped), replicates(grouped, name), noise)


def _exact_value(name: str, alpha: float, group: Group) -> float:
    """The value at the exact minimiser; NaN for the map error, which the cells do not hold."""
    known = group.cells[0].values
    limit = known["exact_half_w2_squared"]
    estimate = known["exact_transport"] + 2 * alpha * known["exact_kl"]
    return {
        "kl": known["exact_kl"],
        "value_gap": limit - known["exact_objective"],
        "ot_error": known.get("exact_ot_error", math.nan),
        "limit_error": abs(estimate - limit),
    }[name]


def _exact_slope(grouped: dict[float, Group], name: str) -> float | None:
    """The slope of the exact values over the same alphas: what the claim can be held against."""
    exact = np.array([_exact_value(name, alpha, g) for alpha, g in grouped.items()])
    if not (exact > 0).all():
        return None
    return float(np.polyfit(np.log(list(grouped)), np.log(exact), 1)[0])


def _against_exact(rate: Rate, slope: float) -> str:
    """The slope of the exact values, which is the expected one only as alpha grows."""
    low, high = rate.interval
    where = "inside" if low <= slope <= high else "outside"
    known = f", {where} this interval" if math.isfinite(low) and math.isfinite(high) else ""
    return f"the exact values over the same alphas have slope {slope:.3f}{known}"


def _recovery(cells: Sequence[Cell]) -> list[Statement]:
    """J of the optimal transport map is 1/2 W2^2 for every alpha, so its KL is 0."""
    found = [c for c in cells if c.id == "recovery" and c.status == "done"]
    if not found:
        return []
    v, alpha = found[0].values, found[0].inputs["alpha"]
    limit = v["half_w2_squared"]
    mean = v["transport"] + alpha * v["kl"]
    error = math.hypot(v["transport_se"], alpha * v["kl_se"])
    claim = "recovery sequence: the OT map has J = 1/2 W2^2 at every alpha, to within 1 %"
    J = plus_minus(mean, Z95 * error, "+-")
    evidence = f"J = {J} at alpha = {alpha:g}, 1/2 W2^2 = {limit:.5f}"
    return [Statement(claim, verdict_equal(mean, error, limit, _RECOVERY * limit), evidence)]
