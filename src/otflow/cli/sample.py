"""`otflow sample`: draw from a model file into a table."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def sample(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    out: Annotated[
        Path, typer.Option("--out", help=".csv, .parquet, .npy or .npz to write; - pipes CSV out.")
    ],
    n: Annotated[int, typer.Option("-n", help="How many samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    condition: Annotated[
        str | None, typer.Option(help="Of a conditional model: one for all draws, as 0.5,1.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw N samples from MODEL, in the data's own units and columns, in bounded memory."""
    from otflow.cli.column_options import one_condition
    from otflow.cli.tables import PIPE, check_target, write_output
    from otflow.estimator.loading import load

    check_target(out, {"MODEL": model})
    flow = load(model)
    pieces = flow.sample_pieces(n, random_state=seed, condition=one_condition(condition))
    write_output(out, flow.columns_, n, pieces)
    if as_json:
        found = {"out": str(out), "rows": n, "columns": list(flow.columns_), "seed": seed}
        typer.echo(json_text(found), err=out == PIPE)
    elif out != PIPE:
        typer.echo(f"{out}: {n} samples, {len(flow.columns_)} columns.")
