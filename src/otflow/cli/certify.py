"""`otflow certify`: how optimal a model is, on a table it was not trained on."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def certify(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help="Table of rows the model was not trained on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    seconds: Annotated[float, typer.Option(help="Time to fit the dual potential.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Bracket the transport of MODEL on DATA and check the flow from outside."""
    from otflow.certificates import certify_model
    from otflow.cli.tables import matching, read_input
    from otflow.data.tabular import check_data
    from otflow.estimator.loading import load

    estimator = load(model)
    rows = check_data(estimator, matching(estimator, read_input(data)))
    found = certify_model(estimator, rows, seconds=seconds, seed=seed)
    if as_json:
        typer.echo(json_text(found.to_dict()))
    else:
        _print(found)


def _print(found: Any) -> None:
    """The lines, the budget and the findings, as Rich tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title=f"Certificate: d = {found.dim}, {found.n} rows, in {found.space}")
    for name in ("what", "value", "interval", "label", "meaning"):
        table.add_column(name, overflow="fold")
    for line in found.lines:
        interval = "" if line.interval is None else _interval(line.interval)
        text = f"{line.explanation} [{line.unit}]".replace("[", r"\[")
        table.add_row(line.name, _number(line.value), interval, line.label, text)
    console.print(table)
    if found.budget:
        budget = Table(title="Error budget of J_alpha, squared units of that space")
        for name in ("source", "size", "to reduce it"):
            budget.add_column(name)
        for item in found.budget:
            mark = " (largest)" if item == found.largest_error else ""
            budget.add_row(item.name + mark, _number(item.value), item.knob)
        console.print(budget)
    for finding in found.findings or ("nothing found wrong",):
        console.print(f"- {finding}", markup=False)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown"


def _interval(ends: tuple[float | None, float | None]) -> str:
    low, high = ends
    if high is None:
        return f">= {low:.4g}"
    return f"{'' if low is None else f'{low:.4g}'} .. {high:.4g}"
