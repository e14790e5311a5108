"""`otflow sample`: draw from a model file into a table."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors


@clean_errors
def sample(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    out: Annotated[Path, typer.Option("--out", help=".csv, .parquet, .npy or .npz to write.")],
    n: Annotated[int, typer.Option("-n", help="How many samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Draw N samples from MODEL, in the data's own units and columns."""
    from otflow.estimator import load
    from otflow.tables import Table, check_output, write_table

    check_output(out)
    flow = load(model)
    samples = flow.sample(n, random_state=seed)
    write_table(out, Table(samples, flow.columns_))
    typer.echo(f"{out}: {n} samples, {samples.shape[1]} columns.")
