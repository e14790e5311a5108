"""Argument checks of the exact references: the argument, what was expected, what came."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from jaxtyping import Float


def check_alpha(alpha: Any) -> float:
    """The penalty weight as a float, positive and possibly infinite.

    Raises TypeError for anything but a real number, ValueError for NaN or a number <= 0.
    """
    value = check_real("alpha", alpha)
    if math.isnan(value) or value <= 0:
        raise ValueError(f"Expected alpha > 0 (math.inf allowed); got {alpha!r}.")
    return value


def check_real(name: str, value: Any) -> float:
    """A real number as a float; TypeError otherwise (booleans included)."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected {name} to be a real number; got {value!r}.")
    return float(value)


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """An integer that is at least `minimum`; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"Expected {name} to be an integer; got {value!r}.")
    if value < minimum:
        raise ValueError(f"Expected {name} >= {minimum}; got {value!r}.")
    return int(value)


def check_array(name: str, value: Any, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """A finite float64 array of the given shape, None standing for any positive length.

    Raises TypeError when the value is not a real array, ValueError for a wrong shape or NaN/inf.
    """
    try:
        raw = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"Expected {name} to be a real array; got a ragged sequence.") from error
    if raw.dtype.kind not in "fiu":
        raise TypeError(f"Expected {name} to be a real array; got dtype {raw.dtype}.")
    wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    fits = raw.ndim == len(shape) and all(
        size is None or size == got for size, got in zip(shape, raw.shape, strict=True)
    )
    if not fits or raw.size == 0:
        raise ValueError(f"Expected {name} of non-empty shape {wanted}; got shape {raw.shape}.")
    array = raw.astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"Expected {name} to be finite; got NaN or infinite entries.")
    return array


def check_weights(name: str, value: Any, size: int | None = None) -> Float[np.ndarray, " k"]:
    """Positive weights that sum to 1 within 1e-9, rescaled so that they sum to 1 in float64."""
    weights = check_array(name, value, (size,))
    if np.any(weights <= 0):
        raise ValueError(f"Expected {name} > 0; got a smallest entry of {weights.min()!r}.")
    total = float(weights.sum())
    if abs(total - 1.0) > 1e-9:
        raise ValueError(f"Expected {name} to sum to 1 within 1e-9; got a sum of {total!r}.")
    return weights / total


def check_points(name: str, value: Any, dim: int) -> Float[np.ndarray, "n d"]:
    """Points of shape (n, dim) in float64."""
    return check_array(name, value, (None, dim))
