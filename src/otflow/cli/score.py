"""`otflow score`: log-densities of a table under a model."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text
from otflow.support.statistics import MeanScore


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
    summary: Annotated[
        bool, typer.Option("--summary", help="Also say whether the fit is good; a few seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the mean log-density of DATA under MODEL with its 95 % interval, in nats.

    It is that of the data in their own units: `otflow fit` prints the nll of standardised columns.
    """
    from otflow.cli.column_options import condition_of
    from otflow.cli.tables import PIPE, check_target, matching, read_input, write_output
    from otflow.estimator.loading import load

    if out is not None:
        check_target(out, {"MODEL": model, "DATA": data})
    flow = load(model)
    table = read_input(data, columns, flow)
    rows, condition = matching(flow, table, columns), condition_of(flow, table)
    log_prob = flow.score_samples(rows, condition)
    if out is not None:
        write_output(out, ("log_prob",), log_prob.size, [log_prob[:, None]])
    mean = MeanScore.of(log_prob)
    found, text = mean.to_dict(), str(mean)
    if summary:
        whole = flow.summary(rows, condition)
        found, text = found | {"summary": whole.to_dict()}, f"{text}\n{whole}"
    typer.echo(json_text(found) if as_json else text, err=out == PIPE)
