"""`otflow between`: carry the rows of one population to another."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float

from otflow.cli.errors import clean_errors, fail, how_to_go_on
from otflow.support.jsontext import json_text

_HELD = 0.2  # of both populations, for the certificate
_CELLS = ".h5ad"


@clean_errors
def between(
    first: Annotated[
        Path, typer.Argument(help="Table of the first population, or .h5ad file of both.")
    ],
    out: Annotated[
        Path, typer.Option(help="Table of the carried rows, or .h5ad file; - pipes CSV out.")
    ],
    second: Annotated[
        Path | None, typer.Argument(help="Table of the second; none with an .h5ad file.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Also write the map to a model file.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to carry, by name: a,b,c.")] = None,
    condition: Annotated[
        str | None, typer.Option(help="Columns that stay: the map is one for every value of them.")
    ] = None,
    at: Annotated[float, typer.Option(help="How far on the straight way, 0 to 1.")] = 1.0,
    time: Annotated[str | None, typer.Option(help="Column of obs, of an .h5ad file.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Its value of the first.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Its value of the second.")] = None,
    obsm: Annotated[
        str | None, typer.Option(help="Key of obsm to carry, of an .h5ad file; X without.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Weight of the nll.")] = 100.0,
    n_steps: Annotated[int, typer.Option(help="Time steps; 1 is optimal to its own end.")] = 4,
    max_iter: Annotated[int, typer.Option(help="Most optimiser steps.")] = 1500,
    max_components: Annotated[int, typer.Option(help="Of the second one's mixture.")] = 30,
    certify: Annotated[
        bool, typer.Option("--certify", help="Hold a fifth out and certify the map on it.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Time that --certify may fit for.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File for the training's state, to resume it from.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between its writes.")] = 100,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint where there is one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Carry the rows of FIRST to the population of SECOND by optimal transport.

    Of an .h5ad file: the cells of one time to those of another; the file is written again as --out,
    with the rows that the cells arrive at in obsm (or layers).
    """
    from otflow.cli.tables import PIPE, check_target
    from otflow.support.checks import check_share
    from otflow.support.files import check_apart, check_writable
    from otflow.training import Watch

    settings: dict[str, Any] = {"alpha": alpha, "n_steps": n_steps, "max_iter": max_iter}
    settings |= {"max_components": max_components, "seed": seed, "resume": resume}
    settings |= {"checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
    inputs = {"FIRST": first, "SECOND": second}
    cells = first.suffix.lower() == _CELLS
    if cells and out.suffix.lower() != _CELLS:
        raise ValueError(f"--out: expected a {_CELLS} file, as FIRST is; got {out}.")
    if cells:
        check_writable(out)
    else:
        check_target(out, inputs)
    if model is not None:
        check_writable(model)
    check_apart({"--out": out, "--model": model, "--checkpoint": checkpoint}, inputs)
    Watch(checkpoint, checkpoint_every, resume)  # checked before anything is read
    check_share("--at", at)
    times = {"--time": time, "--from": start, "--to": end}
    if cells:
        where = f"with a {_CELLS} file"
        _refuse(where, {"SECOND": second, "--columns": columns, "--condition": condition})
        source = _of_cells(first, obsm, at, *_needed(where, times))
    else:
        _refuse("with tables", times | {"--obsm": obsm})
        source = _of_tables(first, columns, condition, *_needed("with tables", {"SECOND": second}))
    with _kept_if_stopped(model, checkpoint):
        found, certificate = _fitted(source, settings, seconds if certify else None, seed)
    source.write(out, found.interpolate(source.x, at, source.condition_x))
    if model is not None:
        found.save(model)
    said = {"out": str(out), "rows": len(source.x), "columns": source.x.shape[1], "at": at}
    if certificate is not None:
        said["certificate"] = certificate.to_dict()
    piped = out == PIPE
    if as_json:
        typer.echo(json_text(said), err=piped)
    elif certificate is not None or not piped:
        typer.echo(_text(said, certificate), err=piped)


def _refuse(where: str, options: dict[str, Any]) -> None:
    """Raise ValueError where an option has no meaning."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: expected none {where}; got {value}.")


def _needed(where: str, options: dict[str, Any]) -> list[Any]:
    """The values; ValueError where one is missing."""
    for name, value in options.items():
        if value is None:
            raise ValueError(f"{name}: expected one {where}; got none.")
    return list(options.values())


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """Two populations, with conditions where there are some, and where carried rows go."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "m d"]
    write: Callable[[Path, Float[np.ndarray, "n d"]], None]
    condition_x: Float[np.ndarray, "n k"] | None = None
    condition_y: Float[np.ndarray, "m k"] | None = None


def _of_tables(first: Path, columns: str | None, condition: str | None, second: Path) -> _Source:
    """Two tables; the columns of the condition come last, and stay as they are."""
    from otflow.cli.tables import join_names, read_input, split_names, write_output
    from otflow.support.frames import check_names

    given = [] if condition is None else split_names(condition)
    chosen = None if columns is None else join_names([*split_names(columns), *given])
    tables = [read_input(path, chosen) for path in (first, second)]
    if chosen is None and given:
        known = tables[0].columns or ()
        order = [*(name for name in known if name not in given), *given]
        tables = [table.select(order) for table in tables]
    check_names("SECOND", tables[1], tables[0].columns)
    d = tables[0].values.shape[1] - len(given)
    if not d:
        raise ValueError(f"--condition: expected to leave columns to carry; got {condition}.")
    names = tables[0].columns or tuple(f"x{j}" for j in range(d))
    (x, c_x), (y, c_y) = ((t.values[:, :d], t.values[:, d:] if given else None) for t in tables)

    def write(out: Path, rows: Float[np.ndarray, "n d"]) -> None:
        rows = rows if c_x is None else np.column_stack([rows, c_x])
        write_output(out, names, len(rows), [rows])

    return _Source(x, y, write, c_x, c_y)


def _of_cells(path: Path, obsm: str | None, at: float, time: str, start: str, end: str) -> _Source:
    """Two times of an AnnData file."""
    from otflow.estimator import cells

    adata = cells.read_cells(path)
    first, second = (
        cells.cells_at(adata, time, start, "from"),
        cells.cells_at(adata, time, end, "to"),
    )
    rows, key = (
        cells.representation(adata, obsm),
        cells.free_key(adata, obsm, end if at == 1 else f"{at:g}_to_{end}", None),
    )

    def write(out: Path, carried: Float[np.ndarray, "n d"]) -> None:
        cells.place(adata, obsm, key, first, carried)
        cells.write_cells(out, adata)

    return _Source(rows[first], rows[second], write)


def _fitted(source: _Source, settings: dict[str, Any], seconds: float | None, seed: int) -> Any:
    """The map, and its certificate on rows that were held out; None where none is asked for."""
    from otflow.estimator.between import transport_between

    rows = [(source.x, source.condition_x), (source.y, source.condition_y)]
    if seconds is None:
        (x, c_x), (y, c_y) = rows
        return transport_between(x, y, condition_x=c_x, condition_y=c_y, **settings), None
    rng = np.random.default_rng(seed)
    parts = []
    for values, given in rows:
        order = rng.permutation(len(values))
        cut = len(order) - int(_HELD * len(order))
        for index in (order[:cut], order[cut:]):
            parts.append((values[index], None if given is None else given[index]))
    (x, c_x), (x_held, c_x_held), (y, c_y), (y_held, c_y_held) = parts
    found: Any = transport_between(x, y, condition_x=c_x, condition_y=c_y, **settings)
    options = {"seconds": seconds, "seed": seed}
    return found, found.certify(x_held, y_held, c_x_held, c_y_held, **options)


@contextlib.contextmanager
def _kept_if_stopped(model: Path | None, checkpoint: Path | None) -> Iterator[None]:
    """Training that is stopped within leaves its map so far, and is told how to go on."""
    from otflow.estimator.estimator import TrainingDivergedError

    try:
        yield
    except (KeyboardInterrupt, TrainingDivergedError) as stop:
        told = "training stopped early"
        if (fitted := getattr(stop, "fitted", None)) is not None:
            if model is not None:
                fitted.save(model)
                told += f"; the map of the best weights so far is in {model}"
            fail(f"{told}. {how_to_go_on(checkpoint)}")
        raise


def _text(said: dict[str, Any], certificate: Any) -> str:
    text = f"{said['out']}: {said['rows']} rows carried, {said['columns']} columns."
    if certificate is None:
        return text
    low, high = certificate.lower, certificate.upper
    text += f"\ntransport in [{low:.4g}, {high:.4g}] ({certificate.confidence:.0%}), "
    text += f"{certificate.space}; held out: {certificate.n} rows."
    for line in certificate.lines:
        if line.name.startswith("T(X) against Y"):
            text += f"\n{line.name}: p = {line.value:.3g}"
    return "\n".join([text, *(f"- {finding}" for finding in certificate.findings)])
