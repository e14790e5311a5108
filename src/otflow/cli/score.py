"""`otflow score`: log-densities of a table under a model."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text
from otflow.support.statistics import Estimate


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
    table = read_input(data, columns)
    rows, condition = matching(flow, table, columns), condition_of(flow, table)
    log_prob = flow.score_samples(rows, condition)
    if out is not None:
        write_output(out, ("log_prob",), log_prob.size, [log_prob[:, None]])
    found, text = mean_score(log_prob), ""
    if summary:
        whole = flow.summary(rows, condition)
        found, text = found | {"summary": whole.to_dict()}, f"\n{whole}"
    typer.echo(json_text(found) if as_json else _text(found) + text, err=out == PIPE)


def mean_score(log_prob: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """The mean over the rows with its interval, and over those that have a density.

    The log-density is -inf outside the bounds and where the map has no inverse; one such row makes
    the mean over all -inf.
    """
    some = log_prob[np.isfinite(log_prob)]
    found = Estimate.of(some)
    interval = list(found.interval) if some.size > 1 else None
    whole = some.size == log_prob.size
    return {
        "rows": log_prob.size,
        "log_prob": found.mean if whole else float(log_prob.mean()),
        "interval_95": interval if whole else None,
        "without_density": log_prob.size - some.size,
        "log_prob_of_others": found.mean,
        "interval_95_of_others": interval,
    }


def _text(found: dict[str, Any]) -> str:
    n, without = found["rows"], found["without_density"]
    if not without:
        return f"mean log-density of {n} rows: {_mean(found, '')}"
    told = f"mean log-density of {n} rows: -inf nats, {without} of them without a density"
    others = f"; of the other {n - without}: {_mean(found, '_of_others')}"
    return told + (others if n > without else "")


def _mean(found: dict[str, Any], which: str) -> str:
    mean, interval = found[f"log_prob{which}"], found[f"interval_95{which}"]
    half = "" if interval is None else f" +- {interval[1] - mean:.4f}"
    return f"{mean:.4f}{half} nats{'' if interval is None else ' (95 %)'}"
