"""Tables of numbers in files: CSV, Parquet, NPY and NPZ, in and out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.data.csv import check_chosen, check_index, csv_frame, not_numeric
from otflow.data.writing import write_pieces
from otflow.support.extras import require
from otflow.support.files import check_writable, one_line

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of numbers; `columns` names them where the file did (CSV, Parquet), else is None."""

    values: Float[np.ndarray, "n d"]
    columns: tuple[str, ...] | None = None

    def select(self, names: Sequence[str]) -> "Table":
        """The columns of these names, in this order.

        Raises:
            ValueError: the table has no names, or not all of these; a name twice.
        """
        if self.columns is None:
            raise ValueError("columns: expected a table with names (CSV or Parquet); got none.")
        check_chosen(names, self.columns)
        found = [self.columns.index(name) for name in names]
        return Table(self.values[:, found], tuple(names))

    def frame(self) -> Any:
        """A polars frame where the columns have names, else the plain array."""
        if self.columns is None:
            return self.values
        return require("polars", "tables").DataFrame(self.values, schema=list(self.columns))


def read_table(
    path: str | Path, columns: Sequence[str] | None = None, own: Sequence[str] = ()
) -> Table:
    """Read a numeric table.

    CSV needs a header line, commas between columns and points in decimals; spaces after commas and
    blank last lines are no part of it. CSV and Parquet need the extra `otflow[tables]`. An NPZ file
    must hold one array, or one named X.

    Args:
        path: the file.
        columns: names of those to use, in this order; the others may hold anything. None is all.
        own: names that are used in the place of all where the table has every one of them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown suffix, unreadable content, a column that is not numeric or has no name
            of its own (such as an index that pandas wrote), or an array that is not
            two-dimensional; names not found.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}.")
    if _suffix(path) in (".csv", ".parquet"):
        return _read_frame(path, columns, own)
    try:
        values = _read_array(path)
    except Exception as error:  # damage surfaces as zipfile, zlib, tokenize, memory errors, ...
        raise _unreadable(path, error) from error
    if values.ndim != 2:
        raise ValueError(f"{path}: expected an array of shape (n, d); got {values.shape}.")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected numbers; got dtype {values.dtype}.")
    table = Table(values.astype(np.float64))
    return table if columns is None else table.select(columns)


def read_csv(
    content: bytes, name: str, columns: Sequence[str] | None = None, own: Sequence[str] = ()
) -> Table:
    """A CSV file's content, as from a pipe; `name` stands for it in errors, which are those above.

    Raises:
        ValueError: as `read_table`.
    """
    return _read_frame(Path(f"{name}.csv"), columns, own, content)


def check_output(path: str | Path) -> Path:
    """The path, if a table can be written there: known suffix, writable folder.

    Raises:
        ValueError, OSError: as said.
    """
    _check_suffix(Path(path))
    return check_writable(path)


def write_table(path: str | Path, table: Table) -> None:
    """Write a table, atomically, in the format that the suffix names."""
    path = check_output(path)
    names = table.columns or tuple(f"x{i}" for i in range(table.values.shape[1]))
    write_pieces(path, names, len(table.values), [table.values])


def _unreadable(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path}: not a readable {path.suffix} file ({one_line(error)}).")


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _check_suffix(path: Path) -> None:
    if _suffix(path) not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a suffix of {', '.join(SUFFIXES)}; got {path.suffix!r}."
        )


def _read_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (_suffix(path) == ".npy"):
            raise ValueError(f"it holds {'one array' if _suffix(path) == '.npz' else 'an archive'}")
        values = loaded if _suffix(path) == ".npy" else _only_array(loaded)
        if not isinstance(values, np.ndarray):
            raise ValueError("the archive's member is no array")
        return values


def _only_array(archive: np.lib.npyio.NpzFile) -> np.ndarray:
    names = archive.files
    if "X" in names:
        return archive["X"]
    if len(names) == 1:
        return archive[names[0]]
    raise ValueError(f"expected one array or one named X; got {names}")


def _read_frame(
    path: Path, columns: Sequence[str] | None, own: Sequence[str], content: bytes | None = None
) -> Table:
    polars = require("polars", "tables")
    try:
        is_csv = _suffix(path) == ".csv"
        frame = csv_frame(path, content) if is_csv else polars.read_parquet(path)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise _unreadable(path, error) from error
    if frame.is_empty():
        raise ValueError(f"{path}: expected at least one row and one column; got {frame.shape}.")
    lacking = [name for name in own if name not in frame.columns]
    if columns is None and own and not lacking:
        columns = own
    if columns is None:
        check_index(str(path), frame.columns)
    else:
        check_chosen(columns, frame.columns)
        frame = frame.select(columns)
    if wrong := not_numeric(frame):
        if columns is None and lacking:
            wrong = f"no {', '.join(lacking)}, which the model has, and {wrong}"
        raise ValueError(f"{path}: expected numeric columns; got {wrong}.")
    values = frame.cast(polars.Float64).fill_null(float("nan")).to_numpy()
    return Table(np.asarray(values, np.float64).reshape(frame.shape), tuple(frame.columns))
