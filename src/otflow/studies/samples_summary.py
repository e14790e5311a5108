"""The sample study's table and statements, from its saved cells alone."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from otflow.studies.cell import Cell
from otflow.studies.rates import fit_rate, slope_claim, verdict_slope
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    Series,
    StudyResult,
    groups,
    make_series,
    replicates,
    verdict_equal,
)
from otflow.studies.verdicts import Statement, verdict_at_least
from otflow.support.statistics import Z95

_LIMIT = 0.2  # relative tolerance of alpha p_eff / (2N) at the largest N
_COLUMNS = (
    "n",
    "loss",
    "population",
    "loss_gap",
    "population_gap",
    "expected_gap",
    "sd",
    "invalid_replicates",
    "usable_alpha",
)


def summarise_samples(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a sample study."""
    done = {c.id: c for c in cells if c.status == "done"}
    best = done.get("optimum")
    alpha = settings["alpha"]
    grouped, spreads = groups(cells, "n"), groups(cells, "spread_n")
    p_eff = math.nan if best is None else best.values["p_eff"]
    c = math.nan if best is None else best.values.get("exact_rate_constant", math.nan)
    rows = []
    for n in _sizes(cells):
        row = _row(n, grouped.get(n), spreads.get(n), alpha * p_eff / (2 * n))
        # where bias c/alpha and estimation alpha p_eff/(2N) balance
        row["usable_alpha"] = math.sqrt(2 * n * c / p_eff) if p_eff > 0 else math.nan
        rows.append(row)
    statements: list[Statement] = []
    series: list[Series] = []
    if best is not None and len(grouped) > 1:
        statements, series = _statements(grouped, spreads, alpha, p_eff)
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=rows,
        statements=statements,
        series=series,
        x_name="n",
    )


def _sizes(cells: Sequence[Cell]) -> list[float]:
    found = {c.inputs.get("n", c.inputs.get("spread_n")) for c in cells}
    return sorted(float(n) for n in found if n is not None)


def _row(n: float, group: Group | None, spread: Group | None, expected: float) -> dict[str, float]:
    row = {"n": n, "expected_gap": expected}
    if spread is not None:
        row["sd"], row["sd_error"] = spread.mean("sd"), spread.noise("sd")
    if group is None:
        return row
    row["invalid_replicates"] = float((group.values("invalid") > 0).sum())
    for name in ("loss", "population", "loss_gap", "population_gap"):
        row[name], row[f"{name}_error"] = group.mean(name), group.error(name)
    return row


def _statements(
    grouped: dict[float, Group], spreads: dict[float, Group], alpha: float, p_eff: float
) -> tuple[list[Statement], list[Series]]:
    fitted, fitted_note = _finite(grouped, "loss_gap", "J_N")
    valid, note = _finite(fitted, "population_gap", "J(theta_N)")
    note = fitted_note + note
    seen = {n: g for n, g in spreads.items() if np.isfinite(g.mean("sd"))}
    expected = [alpha * p_eff / (2 * n) for n in fitted]
    statements, series = [], []
    for claim, part, name, slope, tolerance, more in (
        ("J_N -> J at fixed theta: spread ~ N^-1/2", seen, "sd", -0.5, 0.05, ""),
        ("J(theta*) - J_N(theta_N) ~ 1/N", fitted, "loss_gap", -1.0, 0.2, fitted_note),
        ("J(theta_N) - J(theta*) ~ 1/N", valid, "population_gap", -1.0, 0.2, note),
    ):
        claim = slope_claim(claim, slope, tolerance)
        exact = expected if name == "loss_gap" else None
        drawn = make_series(name, part, name, exact)
        if len(part) < 2:
            text = f"fewer than two N can be used{more}"
            statements.append(Statement(claim, NOT_RESOLVED, text))
            continue
        noise = [g.noise(name) for g in part.values()]
        rate = fit_rate(list(part), replicates(part, name), noise)
        verdict = verdict_slope(rate, slope, tolerance)
        statements.append(Statement(claim, verdict, rate.text + more))
        series.append(
            dataclasses.replace(drawn, slope=rate.slope, intercept=rate.intercept, expected=slope)
        )
    statements.append(_ordering(grouped, valid, note))
    statements.append(_largest(valid, alpha, p_eff))
    return statements, series


def _finite(grouped: dict[float, Group], name: str, loss: str) -> tuple[dict[float, Group], str]:
    """The N at which every replicate's value is finite, and a note on the others."""
    kept = {n: g for n, g in grouped.items() if np.isfinite(g.values(name)).all()}
    left_out = ", ".join(f"{n:g}" for n in grouped if n not in kept)
    if not left_out:
        return kept, ""
    return kept, f"; {loss} is infinite for some replicate, so left out: N = {left_out}"


def _ordering(grouped: dict[float, Group], valid: dict[float, Group], note: str) -> Statement:
    claim = "E J_N(theta_N) <= class optimum <= E J(theta_N)"
    slack = [(g.mean("loss_gap"), g.error("loss_gap")) for g in grouped.values()]
    slack += [(g.mean("population_gap"), g.error("population_gap")) for g in valid.values()]
    means, errors = (list(v) for v in zip(*slack, strict=True))
    i = int(np.argmin(np.array(means) / np.maximum(errors, 1e-300)))
    text = f"least certain gap {means[i]:.2e} +- {Z95 * errors[i]:.1e}{note}"
    return Statement(claim, verdict_at_least(means, errors), text)


def _largest(valid: dict[float, Group], alpha: float, p_eff: float) -> Statement:
    claim = "both gaps are alpha p_eff / (2N) to first order, to within 20 %"
    if not valid:
        return Statement(claim, NOT_RESOLVED, "no N at which every theta_N is invertible")
    n, group = list(valid.items())[-1]
    mean = 0.5 * (group.values("loss_gap") + group.values("population_gap"))
    error = mean.std(ddof=1) / math.sqrt(len(mean)) if len(mean) > 1 else math.inf
    expected = alpha * p_eff / (2 * n)
    verdict = verdict_equal(float(mean.mean()), float(error), expected, _LIMIT * expected)
    found = 2 * n * mean.mean() / alpha
    text = (
        f"N = {n:g}: mean gap gives p_eff = {found:.1f} +- {Z95 * 2 * n * error / alpha:.1f}, "
        f"curvature and gradient noise give {p_eff:.1f}"
    )
    return Statement(claim, verdict, text)
