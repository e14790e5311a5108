"""Argument checks of the certificates: the argument, what was expected, what came."""

import numbers
from typing import Any

import numpy as np
from jaxtyping import Float


def check_confidence(confidence: Any) -> float:
    """A confidence level in (0, 1).

    Raises:
        ValueError, TypeError: anything else.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, numbers.Real):
        raise TypeError(
            f"confidence: expected a number in (0, 1); got {type(confidence).__name__}."
        )
    value = float(confidence)
    if not 0 < value < 1:
        raise ValueError(f"confidence: expected a number in (0, 1); got {confidence}.")
    return value


def check_rows(
    name: str, rows: Any, dim: int | None = None, least: int = 1
) -> Float[np.ndarray, "n d"]:
    """Rows as a finite float64 array of shape (n, dim), n >= least.

    Raises:
        ValueError, TypeError: no numbers, another shape, too few rows, NaN or infinity.
    """
    try:
        rows = np.asarray(rows, np.float64)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"{name}: expected an array of numbers; got {type(rows).__name__}."
        ) from error
    width = "d" if dim is None else dim
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        raise ValueError(f"{name}: expected shape (n, {width}); got {rows.shape}.")
    if len(rows) < least:
        raise ValueError(f"{name}: expected at least {least} rows; got {len(rows)}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity.")
    return rows
