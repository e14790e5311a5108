"""Tables on the command line: files, `-` for CSV through pipes, columns by name."""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from otflow.data.tables import Table, check_output, read_csv, read_table
from otflow.data.writing import Pieces, csv_pieces, write_pieces
from otflow.support.files import PIPE, Paths, check_apart


def read_input(path: Path, columns: str | None = None, flow: Any = None) -> Table:
    """The table in a file, or CSV from standard input; `columns` names some of it, by commas.

    Without, a table that has all columns of the fitted `flow` by name is these alone.
    """
    names = None if columns is None else split_names(columns)
    own = () if flow is None else _own_names(flow)
    if path == PIPE:
        return read_csv(sys.stdin.buffer.read(), "standard input", names, own)
    return read_table(path, names, own)


def _own_names(flow: Any) -> tuple[str, ...]:
    """Names of a model's columns and of its condition's; none where it knows no columns by name."""
    if not hasattr(flow, "feature_names_in_"):
        return ()
    return (*map(str, flow.feature_names_in_), *(flow.condition_names_ or ()))


def split_names(columns: str) -> list[str]:
    """Names of columns between commas; one that holds a comma stands in double quotes.

    Raises:
        ValueError: a quote that is not closed.
    """
    try:
        return next(csv.reader([columns], skipinitialspace=True, strict=True), [""])
    except csv.Error as error:
        raise ValueError(f"--columns: expected names, quotes closed; got {columns!r}.") from error


def join_names(names: Iterable[Any]) -> str:
    """What `split_names` reads: commas between, a name with a comma in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def check_target(path: Path, inputs: Mapping[str, Paths]) -> None:
    """Raise if a table cannot be written there, or would replace an input."""
    if path != PIPE:
        check_output(path)
    check_apart({"--out": path}, inputs)


def write_output(path: Path, names: Sequence[str], n: int, pieces: Pieces) -> None:
    """Write a table of n rows to a file, or CSV to standard output."""
    if path == PIPE:
        sys.stdout.writelines(csv_pieces(names, pieces))
    else:
        write_pieces(path, names, n, pieces)


def matching(flow: Any, table: Table, columns: str | None = None) -> Any:
    """The table as the model knows its rows.

    By name where both have names: a table may hold more columns, in any order. Else, and where
    `columns` chose them, by position.
    """
    names = [str(name) for name in getattr(flow, "feature_names_in_", [])]
    if not names:
        return table.values
    if columns is not None:
        table = dataclasses.replace(table, columns=None)
    elif table.columns is not None and set(names) <= set(table.columns):
        table = table.select(names)
    if table.columns is None and table.values.shape[1] != len(names):
        return table.values  # the estimator says so, by number
    return dataclasses.replace(table, columns=table.columns or flow.columns_).frame()
