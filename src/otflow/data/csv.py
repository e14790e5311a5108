"""CSV as spreadsheets and pandas write it: what is read, and in which words it is refused."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from otflow.support.extras import require

_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # as pandas names one
_DUPLICATE = re.compile(r"(.*)_duplicated_\d+")  # as polars renames the second of two
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{4}|\d\d?:\d\d")
_CHOOSE = "or choose other columns by name (--columns a,b)"
_TAIL = 2**16  # bytes in which the last lines are looked for


def csv_frame(path: Path, content: bytes | None = None) -> Any:
    """A polars frame of a CSV file, or of its content; columns of spaced numbers are numbers.

    Raises:
        ValueError: no header line, two columns of one name, or another separator than commas.
    """
    polars = require("polars", "tables")
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        first = file.readline(_TAIL).decode("utf-8", "replace")
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    _check_separator(path, first)
    source = path if content is None else content
    frame = polars.read_csv(source, infer_schema_length=None)
    _check_header(path, frame.columns)
    blank = _blank_lines(tail)
    while blank > 0 and len(frame) and _is_blank(frame.row(-1)):
        frame, blank = frame[:-1], blank - 1
    return frame.with_columns(
        *(_spaced(frame[name]) for name, kind in frame.schema.items() if kind == polars.String)
    ).rename(str.strip)


def check_index(name: str, columns: Sequence[str]) -> None:
    """Raise ValueError where a column is no data but the index that pandas wrote."""
    for number, column in enumerate(columns, 1):
        if _INDEX.fullmatch(column):
            raise ValueError(
                f"{name}: expected a name for every column; got {column!r} for column {number}, "
                "as pandas writes an index. Write with index=False, or choose columns by name."
            )


def check_chosen(names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise ValueError where names are none, twice the same, or not among the columns."""
    missing = [name for name in names if name not in columns]
    if missing or not names or len(set(names)) < len(names):
        told = f"no {', '.join(missing)}" if missing else f"{', '.join(names) or 'no name'}"
        have = ", ".join(map(_short, columns))
        raise ValueError(f"columns: expected different ones of {have}; got {told}.")


def not_numeric(frame: Any) -> str:
    """The columns of a polars frame that are no numbers, with what helps; "" for none."""
    polars = require("polars", "tables")
    wrong = {
        name: kind
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == polars.Boolean)
    }
    if not wrong:
        return ""
    told = ", ".join(f"{_short(name)} ({kind})" for name, kind in wrong.items())
    return f"{told}: {_remedy(frame[next(iter(wrong))])}"


def _short(name: str) -> str:
    """A name in one line: where a quote is missing, it holds the lines after it."""
    words = " ".join(name.split())
    return words if len(words) <= 40 else f"{words[:40]}..."


def _remedy(column: Any) -> str:
    """What to do about the first column that is no number."""
    polars = require("polars", "tables")
    if column.dtype.is_temporal():
        return "turn dates and times into numbers, " + _CHOOSE
    if column.dtype != polars.String:
        return f"encode them as numbers, {_CHOOSE}"
    text = column.filter(column.cast(polars.Float64, strict=False).is_null() & column.is_not_null())
    first = text[0] if len(text) else ""
    told = f"for example {first[:40]!r} in {_short(column.name)}"
    if _DECIMAL_COMMA.fullmatch(first.strip()):
        return f"{told}; write decimals with points"
    if _DATE.match(first.strip()):
        return f"{told}; turn dates and times into numbers, {_CHOOSE}"
    return f"{told}; encode text as numbers, leave missing values empty, {_CHOOSE}"


def _spaced(column: Any) -> Any:
    """A column of text as numbers, where spaces around them are all that it has beside."""
    polars = require("polars", "tables")
    bare = column.str.strip_chars()
    bare = bare.set(bare == "", None)
    numbers = bare.cast(polars.Float64, strict=False)
    return numbers if numbers.null_count() == bare.null_count() else column


def _blank_lines(tail: bytes) -> int:
    """How many lines after the last one that says something."""
    after = tail[len(tail.rstrip()) :].split(b"\n")[1:]
    return len(after) if after and after[-1] else len(after) - 1


def _is_blank(row: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in row)


def _check_separator(path: Path, first: str) -> None:
    for mark, name, options in (
        (";", "semicolons", "sep=';', decimal=','"),
        ("\t", "tabs", "sep='\\t'"),
    ):
        if mark in first and "," not in first:
            raise ValueError(
                f"{path}: expected commas between columns and points in decimals; got {name} in "
                f"the header line. Convert it: pandas.read_csv(..., {options}).to_csv(..., "
                "index=False)."
            )


def _check_header(path: Path, columns: list[str]) -> None:
    """A first line of numbers is data, not names; 0, 1, 2, ... is what pandas writes as names."""
    for column in columns:
        found = _DUPLICATE.fullmatch(column)
        if found and found[1] in columns:
            raise ValueError(
                f"{path}: expected different names of columns; got {_short(found[1])} twice."
            )
    try:
        numbers = [float(name) for name in columns]
    except ValueError:
        return
    if numbers != list(range(len(columns))):
        told = ", ".join(map(_short, columns))
        raise ValueError(f"{path}: expected a header line with names; got {told}.")
