"""`otflow score`: log-densities of a table under a model."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors


@clean_errors
def score(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help="Table to score; - is CSV piped in.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the log-density of every row here; - pipes CSV out."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of DATA by name, in the model's order: a,b,c.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the mean log-density of DATA under MODEL with its 95 % interval, in nats."""
    from otflow.cli.tables import PIPE, check_target, matching, read_input, write_output
    from otflow.data.tables import Table
    from otflow.estimator.loading import load

    if out is not None:
        check_target(out)
    flow = load(model)
    log_prob = flow.score_samples(matching(flow, read_input(data, columns), columns))
    if out is not None:
        write_output(out, Table(log_prob[:, None], ("log_prob",)))
    n = log_prob.size
    mean = float(log_prob.mean())
    half = 1.96 * float(log_prob.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    if as_json:
        interval = [mean - half, mean + half] if n > 1 else None
        text = json.dumps({"rows": n, "log_prob": mean, "interval_95": interval})
    else:
        text = f"mean log-density of {n} rows: {mean:.4f} +- {half:.4f} nats (95 %)"
    typer.echo(text, err=out == PIPE)
