"""The growth study's table and statements, from its saved cells alone."""

from collections.abc import Sequence
from typing import Any

from otflow.studies.cell import Cell
from otflow.studies.rates import fit_rate, verdict_slope
from otflow.studies.result import (
    NOT_RESOLVED,
    Group,
    StudyResult,
    groups,
    make_series,
    replicates,
    verdict_equal,
)
from otflow.studies.verdicts import Statement, Verdict
from otflow.support.html import plus_minus
from otflow.support.statistics import Z95

_MEASURED = ("transport", "miss", "growth_error", "map_error")
_COLUMNS = ("delta", "n", *_MEASURED, "exact_transport", "half_w2_squared")
_TOLERANCE = 0.05  # of the price: the penalty's share, and the training's


def summarise_growth(
    settings: dict[str, Any], cells: Sequence[Cell], planned: int | None
) -> StudyResult:
    """Table, statements and series of a growth study."""
    deltas, sizes = groups(cells, "delta"), groups(cells, "n")
    rows = [_row("delta", delta, group) for delta, group in deltas.items()]
    rows += [_row("n", n, group) for n, group in sizes.items()]
    statements, series = [], []
    if deltas:
        statements += [_prices(deltas), _limit(deltas)]
        exact = [group.cells[0].values["exact_transport"] for group in deltas.values()]
        series.append(make_series("transport", deltas, "transport", exact))
    if len(sizes) > 1:
        rate = fit_rate(list(sizes), replicates(sizes, "growth_error"))
        claim = "the error of the growth falls like n^-1/2"
        statements.append(Statement(claim, verdict_slope(rate, -0.5, 0.25), rate.text))
    return StudyResult.of(
        settings,
        cells,
        planned,
        columns=_COLUMNS,
        rows=rows,
        statements=statements,
        series=series,
        x_name="delta",
    )


def _row(name: str, value: float, group: Group) -> dict[str, Any]:
    row: dict[str, Any] = {name: value}
    for column in _MEASURED:
        row[column], row[f"{column}_error"] = group.mean(column), group.error(column)
    known = group.cells[0].values
    return row | {c: known[c] for c in ("exact_transport", "half_w2_squared") if c in known}


def _compared(
    grouped: dict[float, Group], name: str
) -> list[tuple[float, float, float, float, Verdict]]:
    """delta, the price, its error, what it should be, and whether it is to within 5 %."""
    found = []
    for delta, group in grouped.items():
        mean, error = group.mean("transport"), group.error("transport")
        expected = group.cells[0].values[name]
        verdict = verdict_equal(mean, error, expected, _TOLERANCE * expected)
        found.append((delta, mean, error, expected, verdict))
    return found


def _prices(grouped: dict[float, Group]) -> Statement:
    found = _compared(grouped, "exact_transport")
    verdicts = [verdict for *_, verdict in found]
    whole: Verdict = "holds"
    if set(verdicts) != {"holds"}:
        whole = "violated" if "violated" in verdicts else NOT_RESOLVED
    delta, mean, error, expected, _ = max(found, key=lambda f: abs(f[1] / f[3] - 1))
    text = (
        f"farthest at delta = {delta:g}: {plus_minus(mean, Z95 * error, '+-')}, exact "
        f"{expected:.4g}; to within {_TOLERANCE:.0%}"
    )
    return Statement("the price is the exact one at every delta", whole, text)


def _limit(grouped: dict[float, Group]) -> Statement:
    delta, mean, error, expected, verdict = _compared(grouped, "half_w2_squared")[-1]
    text = (
        f"{plus_minus(mean, Z95 * error, '+-')} at delta = {delta:g}, 1/2 W2^2 = {expected:.4g}; "
        f"to within {_TOLERANCE:.0%}"
    )
    return Statement("for large delta the price is 1/2 W2^2", verdict, text)
