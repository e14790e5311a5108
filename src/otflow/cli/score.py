"""`otflow score`: log-densities of a table under a model."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from otflow.cli.errors import clean_errors


@clean_errors
def score(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help="Table to score.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write the log-density of every row here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the mean log-density of DATA under MODEL with its 95 % interval, in nats."""
    from otflow.estimator import load
    from otflow.tables import Table, check_output, read_table, write_table

    if out is not None:
        check_output(out)
    flow = load(model)
    table = read_table(data)
    log_prob = flow.score_samples(_matching(flow, table))
    if out is not None:
        write_table(out, Table(log_prob[:, None], ("log_prob",)))
    n = log_prob.size
    mean = float(log_prob.mean())
    half = 1.96 * float(log_prob.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    if as_json:
        interval = [mean - half, mean + half] if n > 1 else None
        typer.echo(json.dumps({"rows": n, "log_prob": mean, "interval_95": interval}))
    else:
        typer.echo(f"mean log-density of {n} rows: {mean:.4f} +- {half:.4f} nats (95 %)")


def _matching(flow: Any, table: Any) -> Any:
    """The table as the model knows its rows: by name where both have names, else by position."""
    other_width = table.values.shape[1] != flow.n_features_in_  # the estimator says so, by number
    if not hasattr(flow, "feature_names_in_") or (other_width and table.columns is None):
        return table.values
    return dataclasses.replace(table, columns=table.columns or flow.columns_).frame()
