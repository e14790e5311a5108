"""`otflow export`: a model's map as a StableHLO program."""

from pathlib import Path
from typing import Annotated

import typer

from otflow.cli.errors import clean_errors
from otflow.support.jsontext import json_text


@clean_errors
def export(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    out: Annotated[Path, typer.Option("--out", help="File for the program.")],
    what: Annotated[str, typer.Option(help="forward, inverse or log_prob.")] = "forward",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a map of MODEL, in the data's own units, as a program that JAX runs without otflow."""
    from otflow.model.export import export_program
    from otflow.model.modelfile import load_model
    from otflow.support.files import atomic_path, check_apart, check_writable
    from otflow.support.precision import dtype_of

    check_writable(out)
    check_apart({"--out": out}, {"MODEL": model})
    loaded = load_model(model)
    program = export_program(loaded, what)  # type: ignore[arg-type]
    with atomic_path(out) as temporary:
        temporary.write_bytes(program)
    dtype = str(dtype_of(loaded.flow.potential))
    found = {"out": str(out), "what": what, "dtype": dtype, "shape": ["n", loaded.flow.dim]}
    text = f"{out}: {what} of (n, {loaded.flow.dim}) {dtype} rows, {len(program)} bytes."
    typer.echo(json_text(found) if as_json else text)
