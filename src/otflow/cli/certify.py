"""`otflow certify`: how optimal a model is, on a table it was not trained on."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def certify(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Argument(help="Table of rows the model was not trained on.")],
    full: Annotated[
        bool, typer.Option("--full", help="Print every line and the error budget too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    seconds: Annotated[float, typer.Option(help="Time to fit the dual potential.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
) -> None:
    """Bracket the transport of MODEL on DATA and check the flow from outside.

    Five answers and the findings are printed; --full adds the lines they are made from.
    """
    from otflow.certificates import certify_model
    from otflow.cli.tables import matching, read_input
    from otflow.data.tabular import check_data
    from otflow.estimator.loading import load

    estimator = load(model)
    rows = check_data(estimator, matching(estimator, read_input(data, flow=estimator)))
    found = certify_model(estimator, rows, seconds=seconds, seed=seed)
    if as_json:
        typer.echo(json_text(found.to_dict()))
    else:
        typer.echo(found.full() if full else f"{found}\n\nAll {len(found.lines)} lines: --full.")
