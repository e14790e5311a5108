"""Tables larger than memory: Parquet and NPY files, read piece by piece."""

import dataclasses
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otflow.data.csv import check_chosen, check_index, not_numeric
from otflow.support.checks import check_count
from otflow.support.extras import require
from otflow.support.files import one_line

_SUFFIXES = (".parquet", ".npy")


@dataclasses.dataclass(frozen=True)
class ShardedTable:
    """Rows of numbers in files that are never read whole: what `OTFlow.fit` streams through.

    Files are cut into pieces of consecutive rows. The pieces make up `lanes` of about equal
    length, and each lane gives an equal part of every batch, its pieces in an order drawn from the
    seed and shuffled within a buffer. The processes of a job share the lanes out and read no other
    rows, so batches do not depend on how many processes there are.

    Attributes:
        paths: Parquet or NPY files; or a folder of them, or a pattern such as "shards/*.parquet".
        columns: names of those to use, of Parquet files; None is all.
        piece_rows: rows read at once; row groups of that size are read fastest.
        buffer_rows: rows shuffled at once, over all lanes: about what is held in memory, twice
            while the next are read.
        lanes: parts of a batch, a multiple of the number of processes; fewer where there are fewer
            pieces.

    Raises:
        FileNotFoundError: no such file.
        ValueError, TypeError: a file that is not readable, is empty, or has other columns than the
            first; numbers out of range.
    """

    paths: Any
    columns: Sequence[str] | None = None
    piece_rows: int = 2**14
    buffer_rows: int = 2**19
    lanes: int = 8
    names: tuple[str, ...] | None = dataclasses.field(init=False)
    dim: int = dataclasses.field(init=False)
    pieces: Int[np.ndarray, "k 3"] = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("piece_rows", "buffer_rows", "lanes"):
            check_count(name, getattr(self, name))
        files = shard_files(self.paths)
        wanted = None if self.columns is None else list(self.columns)
        pieces, first = [], None
        for number, path in enumerate(files):
            n, names, dim = _shape(path, wanted)
            first = first or (names, dim)
            if (names, dim) != first:
                raise ValueError(f"paths: expected the columns of {files[0]}; got others: {path}.")
            starts = np.arange(0, n, self.piece_rows)
            stops = np.minimum(starts + self.piece_rows, n)
            pieces.append(np.column_stack([np.full(len(starts), number), starts, stops]))
        assert first is not None
        found = np.concatenate(pieces)
        if len(found) == 0 or (found[:, 2] - found[:, 1]).sum() < 2:
            raise ValueError("paths: expected at least two rows; got fewer.")
        values = {"paths": tuple(files), "names": first[0], "dim": first[1], "pieces": found}
        values |= {"lanes": min(self.lanes, len(found))}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Rows of all files."""
        return int((self.pieces[:, 2] - self.pieces[:, 1]).sum())

    def read(self, piece: int) -> Float[np.ndarray, "n d"]:
        """The rows of a piece.

        Raises:
            ValueError: the file is damaged, or holds numbers that are not finite (names columns).
        """
        number, start, stop = self.pieces[piece].tolist()
        path = self.paths[number]
        try:
            if path.suffix.lower() == ".npy":
                rows = np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]
            else:
                polars = require("polars", "tables")
                frame = polars.scan_parquet(path).select(self.names).slice(start, stop - start)
                rows = frame.collect().cast(polars.Float64).fill_null(float("nan")).to_numpy()
            rows = np.array(rows, np.float64)
        except Exception as error:  # as varied as damage is
            raise ValueError(f"{path}: not readable ({one_line(error)}).") from error
        bad = ~np.isfinite(rows).all(axis=0)
        if bad.any():
            told = [str(self.names[j]) if self.names else f"x{j}" for j in np.flatnonzero(bad)]
            raise ValueError(
                f"{path}: expected finite numbers; got NaN or infinity in column(s) "
                f"{', '.join(told)}, rows {start} to {stop}."
            )
        return rows


def shard_files(paths: Any) -> list[Path]:
    """The files of a folder, of a pattern, or as they are given; raises as `ShardedTable`."""
    if isinstance(paths, (str, Path)):
        path = Path(paths)
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        else:
            found = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(paths)))]
    else:
        found = [Path(p) for p in paths]
    if not found:
        raise FileNotFoundError(f"paths: expected .parquet or .npy files; {paths} has none.")
    for path in found:
        if path.suffix.lower() not in _SUFFIXES:
            raise ValueError(f"paths: expected .parquet or .npy files; got {path}.")
        if not path.is_file():
            raise FileNotFoundError(f"no such file: {path}.")
    return found


def _shape(path: Path, columns: list[str] | None) -> tuple[int, tuple[str, ...] | None, int]:
    """(rows, names of the columns to use, how many)."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            shape, numeric = array.shape, array.dtype.kind in "fiub"
        else:
            polars = require("polars", "tables")
            frame = polars.scan_parquet(path)
            schema = frame.collect_schema()
    except ImportError:
        raise
    except Exception as error:  # as varied as damage is
        raise ValueError(f"{path}: not readable ({one_line(error)}).") from error
    if path.suffix.lower() == ".npy":
        if columns is not None:
            raise ValueError("columns: expected Parquet files, whose columns have names; got .npy.")
        if len(shape) != 2 or not numeric:
            raise ValueError(f"{path}: expected numbers of shape (n, d); got {shape}.")
        return shape[0], None, shape[1]
    if columns is None:
        check_index(str(path), schema.names())
    else:
        check_chosen(columns, schema.names())
    names = columns or schema.names()
    if wrong := not_numeric(polars.DataFrame(schema={name: schema[name] for name in names})):
        raise ValueError(f"{path}: expected numeric columns; got {wrong}.")
    return frame.select(polars.len()).collect().item(), tuple(names), len(names)
