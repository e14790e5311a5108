"""Tables of numbers in files: CSV, Parquet, NPY and NPZ, in and out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

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
        missing = [name for name in names if name not in self.columns]
        if missing or not names or len(set(names)) < len(names):
            told = f"no {', '.join(missing)}" if missing else f"{', '.join(names) or 'no name'}"
            have = ", ".join(self.columns)
            raise ValueError(f"columns: expected different ones of {have}; got {told}.")
        found = [self.columns.index(name) for name in names]
        return Table(self.values[:, found], tuple(names))

    def frame(self) -> Any:
        """A polars frame where the columns have names, else the plain array."""
        if self.columns is None:
            return self.values
        return require("polars", "tables").DataFrame(self.values, schema=list(self.columns))


def read_table(path: str | Path) -> Table:
    """Read a numeric table.

    CSV needs a header line; CSV and Parquet need the extra `otflow[tables]`. An NPZ file must
    hold one array, or one named X.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown suffix, unreadable content, a column that is not numeric (named), or
            an array that is not two-dimensional.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}.")
    if path.suffix in (".csv", ".parquet"):
        return _read_frame(path)
    try:
        values = _read_array(path)
    except Exception as error:  # damage surfaces as zipfile, zlib, tokenize, memory errors, ...
        raise _unreadable(path, error) from error
    if values.ndim != 2:
        raise ValueError(f"{path}: expected an array of shape (n, d); got {values.shape}.")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{path}: expected numbers; got dtype {values.dtype}.")
    return Table(values.astype(np.float64))


def read_csv(content: bytes, name: str) -> Table:
    """A CSV file's content, as from a pipe; `name` stands for it in errors, which are those above.

    Raises:
        ValueError: as `read_table`.
    """
    return _read_frame(Path(f"{name}.csv"), content)


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


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a suffix of {', '.join(SUFFIXES)}; got {path.suffix!r}."
        )


def _read_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray) != (path.suffix == ".npy"):
            raise ValueError(f"it holds {'one array' if path.suffix == '.npz' else 'an archive'}")
        values = loaded if path.suffix == ".npy" else _only_array(loaded)
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


def _read_frame(path: Path, content: bytes | None = None) -> Table:
    polars = require("polars", "tables")
    try:
        if path.suffix == ".csv":
            source = path if content is None else content
            frame = polars.read_csv(source, infer_schema_length=None)
        else:
            frame = polars.read_parquet(path)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        raise _unreadable(path, error) from error
    if path.suffix == ".csv":
        _check_header(path, frame.columns)
    if frame.is_empty():
        raise ValueError(f"{path}: expected at least one row and one column; got {frame.shape}.")
    wrong = [
        f"{name} ({kind})"
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == polars.Boolean)
    ]
    if wrong:
        raise ValueError(f"{path}: expected numeric columns; got {', '.join(wrong)}.")
    values = frame.cast(polars.Float64).fill_null(float("nan")).to_numpy()
    return Table(np.asarray(values, np.float64).reshape(frame.shape), tuple(frame.columns))


def _check_header(path: Path, columns: list[str]) -> None:
    """A first line of numbers is data, not names; 0, 1, 2, ... is what pandas writes as names."""
    try:
        numbers = [float(name) for name in columns]
    except ValueError:
        return
    if numbers != list(range(len(columns))):
        raise ValueError(f"{path}: expected a header line with names; got {', '.join(columns)}.")
