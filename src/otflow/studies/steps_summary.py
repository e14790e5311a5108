"""The step study's table and statements, from its saved cells alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from otflow.studies.cell import Cell
from otflow.studies.rates import fit_rate, slope_claim, verdict_slope
from otflow.studies.result import (
    Group,
    StudyResult,
    above_minimum,
    groups,
    make_series,
    replicates,
    with_gap,
)
from otflow.studies.verdicts import Statement

_COLUMNS = (
    "scheme",
    "n_steps",
    "nll_error",
    "objective",
    "exact_objective",
    "gap_percent",
    "kl",
    "map_error",
    "invalid",
)


def summarise_steps(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a step study."""
    rk4, conforming = groups(cells, "rk4"), groups(map(with_gap, cells), "conforming")
    rows: list[dict[str, Any]] = []
    for n, group in rk4.items():
        rows.append({"scheme": "rk4", "n_steps": n, "nll_error": group.mean("nll_error")})
        rows[-1]["nll_error_error"] = group.error("nll_error")
    rows += [_conforming_row(k, group) for k, group in conforming.items()]
    statements, series = [], []
    if len(rk4) > 1:
        claim = slope_claim("rk4: the error of the nll falls like n_steps^-4", -4.0, 0.2)
        rate = fit_rate(list(rk4), replicates(rk4, "nll_error"))
        statements.append(Statement(claim, verdict_slope(rate, -4.0, 0.2), rate.text))
        drawn = make_series("nll_error", rk4, "nll_error")
        series.append(
            dataclasses.replace(drawn, slope=rate.slope, intercept=rate.intercept, expected=-4.0)
        )
    if conforming:
        claim = "conforming: J >= J*_alpha at every number of steps"
        statements.append(above_minimum(claim, conforming, "K"))
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=rows,
        statements=statements,
        series=series,
        x_name="n_steps",
    )


def _conforming_row(k: float, group: Group) -> dict[str, Any]:
    exact = group.cells[0].values["exact_objective"]
    row: dict[str, Any] = {
        "scheme": "conforming",
        "n_steps": k,
        "nll_error": 0.0,
        "exact_objective": exact,
    }
    for name in ("objective", "kl", "map_error"):
        row[name], row[f"{name}_error"] = group.mean(name), group.error(name)
    row["gap_percent"] = 100 * (row["objective"] / exact - 1)
    row["invalid"] = float(group.values("invalid").sum())
    return row
