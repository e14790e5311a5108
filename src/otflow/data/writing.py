"""Tables written piece by piece, so that they need not fit in memory."""

import itertools
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from otflow.support.extras import require
from otflow.support.files import atomic_path

Pieces = Iterable[Float[np.ndarray, "k d"]]


def write_pieces(path: Path, names: Sequence[str], n: int, pieces: Pieces) -> None:
    """Write a table of n rows, atomically, in the format that the suffix names.

    Args:
        path: .csv, .parquet, .npy or .npz; the last two hold no names.
        names: of the d columns.
        n: rows of all pieces.
        pieces: consecutive rows. Parquet holds them on the disk twice while it is written.
    """
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary:
        if suffix == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.writelines(csv_pieces(names, pieces))
        elif suffix == ".parquet":
            _write_parquet(temporary, names, pieces)
        elif suffix == ".npy":
            with temporary.open("wb") as file:
                _write_array(file, (n, len(names)), pieces)
        else:
            with (
                zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
                archive.open("X.npy", "w", force_zip64=True) as file,
            ):
                _write_array(file, (n, len(names)), pieces)


def csv_pieces(names: Sequence[str], pieces: Pieces) -> Iterator[str]:
    """The pieces as CSV, the first with a header line."""
    for number, piece in enumerate(pieces):
        yield _frame(names, piece).write_csv(include_header=number == 0)


def _write_parquet(path: Path, names: Sequence[str], pieces: Pieces) -> None:
    """Polars streams from files to a file, so there is one a piece first."""
    frames = (_frame(names, piece) for piece in pieces)
    first, second = next(frames), next(frames, None)
    if second is None:
        first.write_parquet(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".otflow-") as folder:
        parts = []
        for number, frame in enumerate(itertools.chain((first, second), frames)):
            parts.append(Path(folder) / f"{number}.parquet")
            frame.write_parquet(parts[-1])
        require("polars", "tables").scan_parquet(parts).sink_parquet(path)


def _write_array(file: BinaryIO | Any, shape: tuple[int, int], pieces: Pieces) -> None:
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for piece in pieces:
        file.write(np.ascontiguousarray(piece, "<f8").tobytes())


def _frame(names: Sequence[str], piece: Float[np.ndarray, "k d"]) -> Any:
    return require("polars", "tables").DataFrame(piece, schema=list(names))
