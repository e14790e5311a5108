"""What a study comes to: a table, statements of the theory with verdicts, and series to draw."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from otflow.studies.cell import Cell
from otflow.studies.verdicts import Statement, Verdict, verdict_at_least
from otflow.support.html import plus_minus, table
from otflow.support.jsontext import plain
from otflow.support.statistics import Z95, Estimate


@dataclasses.dataclass(frozen=True)
class Series:
    """A curve of a figure: means over replicates with standard errors, and the exact values.

    `slope` and `intercept` are those of a fitted power law, if there is one; `expected` the
    theory's slope, `exact_slope` that of the exact values over the fitted points. `x_name` is what
    it is against where that is not the study's.
    """

    name: str
    x: list[float]
    mean: list[float]
    standard_error: list[float]
    exact: list[float] | None = None
    slope: float | None = None
    intercept: float | None = None
    expected: float | None = None
    exact_slope: float | None = None
    x_name: str | None = None


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """The summary of a study's finished cells.

    Attributes:
        settings: of the study, with its kind.
        columns: names of the table's columns.
        rows: one an alpha, sample size, width or number of steps.
        statements: what the theory promises, with verdict and evidence.
        series: for the figures, against `x_name`.
        x_name: the quantity varied.
        cells, planned: finished cells of all that are planned; None where the plan is not at hand.
        failed: (cell, error) of those that failed.
    """

    settings: dict[str, Any]
    columns: tuple[str, ...]
    rows: list[dict[str, float]]
    statements: list[Statement]
    series: list[Series]
    x_name: str
    cells: int
    planned: int | None
    failed: list[tuple[str, str]]

    @staticmethod
    def of(
        settings: dict[str, Any], cells: "Sequence[Cell]", planned: int | None, **found: Any
    ) -> "StudyResult":
        """With the numbers of cells; `found` are the other fields."""
        counts = {"cells": len(cells), "planned": planned, "failed": failures(cells)}
        return StudyResult(settings=settings, **found, **counts)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON knows it; NaN and infinities become None."""
        return plain(dataclasses.asdict(self))

    def texts(self) -> list[tuple[str, ...]]:
        """The table as texts, a value with its 95 % interval where it has one."""
        return [tuple(_text(row, column) for column in self.columns) for row in self.rows]

    def _repr_html_(self) -> str:
        """Verdicts and table, for notebooks."""
        title = f"{self.settings.get('kind', '')} study, {self.settings.get('problem', '')}"
        verdicts = [(s.claim, s.verdict, s.evidence) for s in self.statements]
        header = [column.replace("_", " ") for column in self.columns]
        return table(title, header, self.texts()) + table(
            "What the theory promises", ("statement", "verdict", "evidence"), verdicts
        )


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str) or value is None:
        return value or ""
    error = row.get(f"{column}_error")
    if error is not None and math.isfinite(error) and error > 0:
        return plus_minus(value, Z95 * error)
    return f"{value:.5g}"


def with_gap(cell: Cell) -> Cell:
    """The cell with J - J*, which stores of earlier versions do not hold."""
    v = dict(cell.values)
    if "gap" not in v and "exact_objective" in v:
        v["gap"], v["gap_se"] = v["objective"] - v["exact_objective"], v["objective_se"]
    return dataclasses.replace(cell, values=v)


def above_minimum(claim: str, grouped: "dict[float, Group]", varied: str) -> Statement:
    """J >= J*_alpha of every trained flow by itself.

    The claim is of each flow, not of their mean, so a gap has the Monte Carlo error of its
    measurement only, however far seeds lie apart.
    """
    invalid = sum(g.values("invalid").sum() for g in grouped.values())
    if invalid > 0:
        note = f"{invalid:g} points at which a flow is not invertible: J is infinite there"
        return Statement(claim, NOT_RESOLVED, note)
    gaps = np.concatenate([g.values("gap") for g in grouped.values()])
    errors = np.concatenate([g.values("gap_se") for g in grouped.values()])
    where = np.repeat(list(grouped), [len(g.cells) for g in grouped.values()])
    i = int(np.argmin(gaps / np.maximum(errors, 1e-300)))
    text = (
        f"least certain of {len(gaps)} flows: {gaps[i]:.2e} +- {Z95 * errors[i]:.1e} "
        f"at {varied} = {where[i]:g}"
    )
    return Statement(claim, verdict_at_least(gaps, errors), text)


class Group:
    """The finished cells of one alpha (or N, width, ...): means over replicates."""

    def __init__(self, cells: Sequence[Cell]):
        self.cells = list(cells)

    def values(self, name: str) -> np.ndarray:
        """One value a replicate; NaN where a cell has none."""
        return np.array([cell.values.get(name, math.nan) for cell in self.cells], float)

    def mean(self, name: str) -> float:
        """Mean over the replicates."""
        return float(self.values(name).mean())

    def noise(self, name: str) -> float:
        """Monte Carlo standard error, common to the replicates: they share their points."""
        values = self.values(f"{name}_se")
        return float(np.sqrt(np.mean(values**2))) if np.isfinite(values).all() else 0.0

    def error(self, name: str) -> float:
        """Standard error of the mean, from the spread of the replicates and the noise.

        The spread is inflated so that a normal interval from it has the width of Student's.
        """
        values = self.values(name)
        if not np.isfinite(values).all():
            return math.nan
        spread = Estimate.of_few(values).standard_error if len(values) > 1 else 0.0
        return float(np.hypot(spread, self.noise(name)))


def groups(cells: Iterable[Cell], key: str) -> dict[float, Group]:
    """Finished cells by one of their inputs, in increasing order."""
    found: dict[float, list[Cell]] = {}
    for cell in cells:
        if cell.status == "done" and key in cell.inputs:
            found.setdefault(float(cell.inputs[key]), []).append(cell)
    return {k: Group(found[k]) for k in sorted(found)}


def replicates(grouped: dict[float, Group], name: str) -> np.ndarray:
    """One value a replicate, a row a group, as `fit_rate` reads it: NaN where a cell failed."""
    values = [g.values(name) for g in grouped.values()]
    table = np.full((len(values), max(len(v) for v in values)), math.nan)
    for row, v in zip(table, values, strict=True):
        row[: len(v)] = v
    return table


def failures(cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """(cell, error) of those that failed."""
    return [(c.id, c.error or "") for c in cells if c.status == "failed"]


def verdict_equal(mean: float, error: float, expected: float, tolerance: float) -> Verdict:
    """Whether a value is expected +- tolerance, decided by its whole 95 % interval."""
    low, high = mean - Z95 * error, mean + Z95 * error
    if expected - tolerance <= low and high <= expected + tolerance:
        return "holds"
    return "violated" if low > expected + tolerance or high < expected - tolerance else NOT_RESOLVED


NOT_RESOLVED: Verdict = "not resolved"


def make_series(
    name: str, grouped: dict[float, Group], column: str, exact: list[float] | None = None
) -> Series:
    """The means of one value against the quantity varied."""
    return Series(
        name,
        list(grouped),
        [g.mean(column) for g in grouped.values()],
        [g.error(column) for g in grouped.values()],
        exact,
    )
