"""What the loaders of real data share: where files are, whether they are the right ones, splits."""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from otflow.datasets.real import Split

FOLDER_VARIABLE = "OTFLOW_DATA"


@dataclass(frozen=True, eq=False)
class Table(Split):
    """A `Split` with the affine map behind its columns: file's units = z * scale + shift.

    `source` says where the rows come from and what was done to them.
    """

    shift: Float64[np.ndarray, " d"]
    scale: Float64[np.ndarray, " d"]
    source: str


def find_file(folder: str | Path | None, names: tuple[str, ...], hint: str) -> Path:
    """The first of the files that is there.

    Args:
        folder: where to look; None is the folder in the environment variable OTFLOW_DATA.
        names: paths within it, in order of preference.
        hint: what to get, and where, for the error.

    Raises:
        FileNotFoundError: none is there, or no folder is given.
    """
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise FileNotFoundError(
            f"folder: expected the folder that holds {names[0]}, as an argument or in the "
            f"environment variable {FOLDER_VARIABLE}; got none. {hint}"
        )
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise FileNotFoundError(f"expected {' or '.join(names)} in {folder}; got none. {hint}")


def check_sum(path: Path, sha256: str) -> None:
    """Warn unless the file is, byte for byte, the one that the documentation's figures are of."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        warnings.warn(
            f"{path.name}: expected SHA-256 {sha256[:12]}...; got {found[:12]}...: another version "
            "of the file, so published figures need not hold for it.",
            UserWarning,
            stacklevel=4,
        )


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file, in float64; pickled objects are refused.

    Raises:
        ValueError: it is no such file, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return [archive[name].astype(np.float64) for name in names]
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected arrays {', '.join(names)}; got {error}.") from error


def read_matrix(path: Path, columns: int | None = None) -> Float64[np.ndarray, "n d"]:
    """The matrix in an .npy file, in float64; pickled objects are refused.

    Raises:
        ValueError: it is no matrix of numbers, or has another number of columns.
    """
    try:
        x = np.load(path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a matrix of numbers; got {error}.") from error
    if x.ndim != 2 or columns not in (None, x.shape[1]):
        wanted = "a matrix" if columns is None else f"shape (n, {columns})"
        raise ValueError(f"{path}: expected {wanted}; got shape {x.shape}.")
    return x


def cut_tail(x: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test rows: the last tenth is for the test, of the rest likewise.

    Rounded down, as in the MAF paper's code.
    """
    rest, test = np.split(x, [len(x) - int(0.1 * len(x))])
    train, validation = np.split(rest, [len(rest) - int(0.1 * len(rest))])
    return train, validation, test


def standardised(
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    name: str,
    feature_names: tuple[str, ...],
    source: str,
    standardise: bool = True,
) -> Table:
    """A `Table` z-scored by training and validation rows together."""
    fitted = np.concatenate(parts[:2])
    d = fitted.shape[1]
    shift = fitted.mean(axis=0) if standardise else np.zeros(d)
    scale = fitted.std(axis=0) if standardise else np.ones(d)
    train, validation, test = ((part - shift) / scale for part in parts)
    return Table(train, validation, test, name, feature_names, shift, scale, source)


def numbered(prefix: str, d: int) -> tuple[str, ...]:
    """prefix0, prefix1, ..."""
    return tuple(f"{prefix}{i}" for i in range(d))
