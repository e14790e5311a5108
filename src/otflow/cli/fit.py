"""`otflow fit`: train on a table and write a model file."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors, fail


@clean_errors
def fit(
    data: Annotated[
        Path, typer.Argument(help="Table: .csv (with header), .parquet, .npy or .npz.")
    ],
    out: Annotated[Path, typer.Option(help="Model file to write.")],
    alpha: Annotated[float, typer.Option(help="Weight of the nll.")] = 30.0,
    beta: Annotated[float, typer.Option(help="Weight of the hjb regulariser.")] = 0.0,
    width: Annotated[int, typer.Option(help="Units a layer.")] = 64,
    depth: Annotated[int, typer.Option(help="Residual layers.")] = 1,
    scheme: Annotated[str, typer.Option(help="conforming or rk4.")] = "conforming",
    n_steps: Annotated[
        int | None, typer.Option(help="Time steps; 4 for conforming, 8 for rk4.")
    ] = None,
    max_iter: Annotated[int, typer.Option(help="Most optimiser steps.")] = 2000,
    natural_iter: Annotated[int, typer.Option(help="Natural-gradient steps after those.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows a step.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.01,
    patience: Annotated[int, typer.Option(help="Validations without improvement.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
) -> None:
    """Train a flow on the rows of DATA; a tenth of them is held out to stop in time."""
    settings = {k: v for k, v in locals().items() if k not in ("data", "out", "seed")}
    from otflow.estimator import OTFlow, TrainingDivergedError
    from otflow.files import check_writable
    from otflow.tables import read_table

    check_writable(out)
    table = read_table(data)
    model = OTFlow(random_state=seed, **settings)
    try:
        model.fit(table.frame())
    except (KeyboardInterrupt, TrainingDivergedError):
        if hasattr(model, "flow_"):
            model.save(out)
            fail(f"training stopped early; the best weights so far are in {out}.")
        raise
    model.save(out)
    last = model.history_["iteration"].index(model.n_iter_)
    typer.echo(
        f"{out}: {len(table.values)} rows, {table.values.shape[1]} columns, "
        f"{model.n_iter_} iterations kept ({model.status_}).\n"
        f"validation: transport {model.history_['val_transport'][last]:.4f}, "
        f"nll {model.history_['val_nll'][last]:.4f} nats, "
        f"hjb {model.history_['val_hjb'][last]:.4f} (in the standardised space)."
    )
