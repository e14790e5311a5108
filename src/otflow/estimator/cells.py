"""Single cells of two times in one AnnData object: two populations, and where one goes."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from otflow.estimator.between import transport_between
from otflow.estimator.growing import GrowingBetween
from otflow.estimator.population_map import Between
from otflow.support.checks import check_rows
from otflow.support.extras import require
from otflow.support.files import atomic_path, one_line

_SHOWN = 12  # values of a column in an error


def transport_cells(
    adata: Any,
    time: str,
    start: Any,
    end: Any,
    *,
    obsm: str | None = None,
    key: str | None = None,
    **settings: Any,
) -> Between | GrowingBetween:
    """Transport the cells of one time to those of another, and write where they arrive.

    The rows go into `adata.obsm` beside the representation they were moved in, or into
    `adata.layers` where that is X: those of the cells at `start`, NaN for all other cells.

    Args:
        adata: an AnnData object, in memory.
        time: the column of `adata.obs` that tells the cells' time.
        start, end: its values: numbers, or texts.
        obsm: the key of the representation, (cells, d), such as "X_pca"; None is `adata.X`, dense
            or sparse.
        key: of the result; by default the representation's with "_at_" and `end`.
        settings: of `transport_between`.

    Returns:
        The map.

    Raises:
        ValueError, TypeError: no such column, key or cells at a time; a key that is taken; rows or
            settings as in `transport_between`.
    """
    first, second = cells_at(adata, time, start, "start"), cells_at(adata, time, end, "end")
    rows = representation(adata, obsm)
    key = free_key(adata, obsm, end, key)
    found = transport_between(rows[first], rows[second], **settings)
    place(adata, obsm, key, first, found.transform(rows[first]))
    return found


def read_cells(path: Path) -> Any:
    """The AnnData object in an .h5ad file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such object in it.
        ImportError: anndata is missing.
    """
    anndata = require("anndata", "anndata")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}.")
    try:
        return anndata.read_h5ad(path)
    except Exception as error:  # damage surfaces as errors of HDF5 and of anndata, KeyError, ...
        raise ValueError(f"{path}: not a readable .h5ad file ({one_line(error)}).") from error


def write_cells(path: Path, adata: Any) -> None:
    """Write an .h5ad file, atomically; the texts of pandas 3 too."""
    settings = require("anndata", "anndata").settings
    with atomic_path(path) as temporary, settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(temporary)


def cells_at(adata: Any, time: str, value: Any, name: str) -> Bool[np.ndarray, " n"]:
    """Which cells are of that time; a text that reads as a number is one in a column of numbers.

    Raises:
        ValueError: no such column, or no such cells; tells the columns or values there are.
    """
    if time not in adata.obs:
        found = ", ".join(map(str, adata.obs))
        raise ValueError(f"time: expected one of obs' columns: {found}; got {time!r}.")
    column = np.asarray(adata.obs[time])
    if column.dtype.kind in "fiub":
        try:
            here = column == float(value)
        except (TypeError, ValueError):
            here = np.zeros(len(column), bool)
    else:
        here = column.astype(str) == str(value)
    if not here.any():
        values = sorted(set(column.astype(str)))
        told = ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
        raise ValueError(f"{name}: expected a value of obs[{time!r}]: {told}; got {value!r}.")
    return here


def representation(adata: Any, obsm: str | None) -> Float[np.ndarray, "n d"]:
    """The cells' rows: of a key of obsm, or of X, made dense.

    Raises:
        ValueError, TypeError: no such key; no finite numbers.
    """
    if obsm is not None and obsm not in adata.obsm:
        found = ", ".join(map(str, adata.obsm)) or "none"
        raise ValueError(f"obsm: expected one of its keys: {found}; got {obsm!r}.")
    rows = adata.X if obsm is None else adata.obsm[obsm]
    name = "X" if obsm is None else obsm
    if rows is None:
        raise ValueError("X: expected numbers; the object has none.")
    return check_rows(name, rows.toarray() if hasattr(rows, "toarray") else rows)


def free_key(adata: Any, obsm: str | None, end: Any, key: str | None) -> str:
    """Where the result goes.

    Raises:
        ValueError: something is there.
    """
    place = adata.layers if obsm is None else adata.obsm
    default = f"at_{end}" if obsm is None else f"{obsm}_at_{end}"
    key = default if key is None else key
    if key in place:
        where = "layers" if obsm is None else "obsm"
        raise ValueError(f"key: expected one that {where} does not have; got {key!r}.")
    return key


def place(
    adata: Any,
    obsm: str | None,
    key: str,
    cells: Bool[np.ndarray, " n"],
    rows: Float[np.ndarray, "k d"],
) -> None:
    """Rows of some cells under a key, NaN for the others."""
    whole = np.full((len(cells), rows.shape[1]), np.nan)
    whole[cells] = rows
    if obsm is None:
        adata.layers[key] = whole
    else:
        adata.obsm[key] = whole
