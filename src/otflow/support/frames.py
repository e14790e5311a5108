"""Arrays, lists and data frames: the names of their columns, and what in them is no number."""

import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np

_DATES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
# how NumPy, pandas and polars begin the names of their types
_DATE_TYPES = ("date", "time", "period", "duration")
_NUMBER_TYPES = ("int", "uint", "float", "bool")
_REMEDIES = {
    "dates or times": "Turn them into numbers first, such as days since the earliest.",
    "complex numbers": "Complex data not supported; real and imaginary parts can be columns.",
}


def names_of(table: Any) -> tuple[str, ...] | None:
    """Names of a frame's columns, or of a pandas Series' entries; None where they are not text."""
    found = getattr(table, "columns", getattr(table, "index", None))
    if found is None or callable(found):
        return None
    names = tuple(found)
    return names if names and all(isinstance(name, str) for name in names) else None


def check_names(name: str, table: Any, expected: Sequence[str] | None) -> None:
    """Compare columns by name and order, where both sides have names.

    Raises:
        ValueError: the columns of `table` are not the expected ones, or in another order.
    """
    found = names_of(table)
    if expected is None or found is None or found == tuple(expected):
        return
    raise ValueError(
        f"{name}: expected the columns {', '.join(expected)}, in this order; "
        f"got {', '.join(found)}."
    )


def check_kinds(name: str, table: Any, prefix: str = "x") -> None:
    """Refuse what would be turned into numbers that it is not; text is left to the caller.

    Args:
        name: of the argument.
        table: an array, a list or a data frame.
        prefix: of the names of columns that have none: x0, x1, ...

    Raises:
        ValueError: dates, times, complex numbers or masked values, naming their columns.
    """
    if np.ma.is_masked(table):
        counts = np.atleast_1d(np.ma.getmaskarray(table).sum(axis=0))
        told = [f"{prefix}{j} ({counts[j]})" for j in np.flatnonzero(counts)]
        where = f"in column(s), with their counts, {', '.join(told)}"
        if np.ndim(table) != 2:
            where = f"({np.ma.count_masked(table)} of them)"
        raise ValueError(
            f"{name}: expected numbers without a mask; got masked values {where}. "
            "Drop or fill these rows first."
        )
    odd = _odd_columns(table, prefix)
    for kind, remedy in _REMEDIES.items():
        if kind in odd:
            raise ValueError(f"{name}: expected real numbers; got {kind}{_in(odd[kind])}. {remedy}")


def text_columns(table: Any, prefix: str = "x") -> list[str]:
    """Names of the columns that hold text which is no number."""
    return _odd_columns(table, prefix).get("text", [])


def _in(columns: list[str]) -> str:
    return f" in column(s) {', '.join(columns)}" if any(columns) else ""


def _odd_columns(table: Any, prefix: str) -> dict[str, list[str]]:
    """Kind -> names of the columns that hold it; "" stands for the one column of a vector."""
    if hasattr(table, "columns") and hasattr(table, "dtypes"):
        at = table.iloc.__getitem__ if hasattr(table, "iloc") else table.__getitem__
        columns = [at((slice(None), j)) for j in range(len(table.dtypes))]
    else:
        try:
            array = table if hasattr(table, "dtype") else np.asarray(table)
        except ValueError:
            return {}  # ragged: no table at all, which is found elsewhere
        if np.ndim(array) == 1:
            kind = _kind(array)
            return {} if kind is None else {kind: [""]}
        if str(array.dtype).startswith(_NUMBER_TYPES) or np.ndim(array) != 2:
            return {}
        columns = list(array.T)
    names = names_of(table) or [f"{prefix}{j}" for j in range(len(columns))]
    found: dict[str, list[str]] = {}
    for column_name, column in zip(names, columns, strict=True):
        if (kind := _kind(column)) is not None:
            found.setdefault(kind, []).append(column_name)
    return found


def _kind(column: Any) -> str | None:
    """What a column holds beside numbers: a key of `_REMEDIES`, or text."""
    dtype = str(column.dtype).lower()
    if dtype.startswith(_DATE_TYPES):
        return "dates or times"
    if dtype.startswith("complex"):
        return "complex numbers"
    if dtype.startswith(_NUMBER_TYPES):
        return None
    for value in np.asarray(column).tolist():
        if isinstance(value, _DATES):
            return "dates or times"
        if isinstance(value, complex | np.complexfloating):
            return "complex numbers"
        if isinstance(value, str | bytes) and not _is_number(value):
            return "text"
    return None


def _is_number(text: str | bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
