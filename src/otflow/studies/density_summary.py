"""The density study's table and statements, from its saved cells alone."""

from collections.abc import Sequence
from typing import Any

from otflow.studies.cell import Cell
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    StudyResult,
    groups,
    make_series,
    verdict_equal,
)
from otflow.studies.verdicts import Statement, Verdict, verdict_at_least
from otflow.support.statistics import Z95

_COLUMNS = ("steps", "integral", "kl", "invalid")
_TOLERANCE = 0.02  # of the integral: more than the sampling beyond two dimensions


def summarise_density(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a density study."""
    grouped = groups(cells, "steps")
    rows: list[dict[str, Any]] = [_row(steps, group) for steps, group in grouped.items()]
    names = ("integral", "kl")
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=rows,
        statements=[_one(grouped), _below_the_truth(grouped)] if grouped else [],
        series=[make_series(name, grouped, name) for name in names] if grouped else [],
        x_name="steps",
    )


def _row(steps: float, group: Group) -> dict[str, Any]:
    row: dict[str, Any] = {"steps": steps, "invalid": float(group.values("invalid").sum())}
    for name in ("integral", "kl"):
        row[name], row[f"{name}_error"] = group.mean(name), group.error(name)
    return row


def _each(grouped: dict[float, Group], name: str) -> list[tuple[float, float, float]]:
    """(steps, value, standard error) of every density: a mean would hide one that is none."""
    found = []
    for steps, group in grouped.items():
        pairs = zip(group.values(name), group.values(f"{name}_se"), strict=True)
        found += [(steps, float(value), float(error)) for value, error in pairs]
    return found


def _one(grouped: dict[float, Group]) -> Statement:
    found = _each(grouped, "integral")
    verdicts = [verdict_equal(value, error, 1.0, _TOLERANCE) for _, value, error in found]
    verdict: Verdict = "holds"
    if set(verdicts) != {"holds"}:
        verdict = "violated" if "violated" in verdicts else NOT_RESOLVED
    steps, value, error = max(found, key=lambda cell: abs(cell[1] - 1))
    text = (
        f"of {len(found)} densities the farthest from 1 is {value:.6g} +- {Z95 * error:.1g}, "
        f"after {steps:g} steps"
    )
    claim = f"the density integrates to one, on its way too, to within {_TOLERANCE:g}"
    return Statement(claim, verdict, text)


def _below_the_truth(grouped: dict[float, Group]) -> Statement:
    found = _each(grouped, "kl")
    verdict = verdict_at_least([kl for _, kl, _ in found], [error for _, _, error in found])
    steps, kl, error = min(found, key=lambda cell: cell[1])
    text = f"smallest KL {kl:.3g} +- {Z95 * error:.1g} nats, after {steps:g} steps"
    return Statement("KL >= 0: no density is above the truth on average", verdict, text)
