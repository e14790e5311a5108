"""Tables on the command line: files, `-` for CSV through pipes, columns by name."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from otflow.data.tables import Table, check_output, csv_text, read_csv, read_table, write_table

PIPE = Path("-")


def read_input(path: Path, columns: str | None = None) -> Table:
    """The table in a file, or CSV from standard input; `columns` names some of it, by commas."""
    names = None if columns is None else columns.split(",")
    if path == PIPE:
        return read_csv(sys.stdin.buffer.read(), "standard input", names)
    return read_table(path, names)


def check_target(path: Path) -> None:
    """Raise if a table cannot be written there."""
    if path != PIPE:
        check_output(path)


def write_output(path: Path, table: Table) -> None:
    """Write a table to a file, or CSV to standard output."""
    if path == PIPE:
        sys.stdout.write(csv_text(table))
    else:
        write_table(path, table)


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
