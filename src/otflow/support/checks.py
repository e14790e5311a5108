"""Checks of arguments, in one form: which argument, what was expected, what came."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.support.frames import check_kinds


def check_number(name: str, value: Any, *, positive: bool, infinite: bool = False) -> float:
    """A real number > 0 (positive) or >= 0 as a float; infinity only where it is allowed.

    Raises:
        TypeError, ValueError: anything else.
    """
    bound = "> 0" if positive else ">= 0"
    number = check_real(name, value, f"a number {bound}")
    kind = "number" if infinite else "finite number"
    if math.isnan(number) or number < 0 or (positive and number == 0):
        raise ValueError(f"{name}: expected a {kind} {bound}; got {value}.")
    if math.isinf(number) and not infinite:
        raise ValueError(f"{name}: expected a {kind} {bound}; got {value}.")
    return number


def check_alpha(alpha: Any) -> float:
    """The weight of the nll or KL where its limit has an answer too: > 0, possibly infinite.

    Raises:
        TypeError, ValueError: anything else.
    """
    return check_number("alpha", alpha, positive=True, infinite=True)


def check_real(name: str, value: Any, expected: str = "a real number") -> float:
    """Any Python or NumPy real number as a float.

    Raises:
        TypeError: anything else: booleans, text, also fractions, which no file keeps as they are.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected {expected}; got {type(value).__name__}.")
    return float(value)


def check_fraction(name: str, value: Any) -> float:
    """A number strictly between 0 and 1, such as a confidence level.

    Raises:
        TypeError, ValueError: anything else.
    """
    number = check_real(name, value, "a number in (0, 1)")
    if not 0 < number < 1:
        raise ValueError(f"{name}: expected a number in (0, 1); got {value}.")
    return number


def check_share(name: str, value: Any) -> float:
    """A number in [0, 1], such as a time on the way.

    Raises:
        TypeError, ValueError: anything else.
    """
    number = check_number(name, value, positive=False)
    if number > 1:
        raise ValueError(f"{name}: expected a number in [0, 1]; got {value}.")
    return number


def check_count(name: str, value: Any, least: int = 1) -> int:
    """An integer >= least.

    Raises:
        TypeError, ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer >= {least}; got {type(value).__name__}.")
    if value < least:
        raise ValueError(f"{name}: expected an integer >= {least}; got {value}.")
    return int(value)


def read_numbers(name: str, value: Any, ndim: int | None = None) -> np.ndarray:
    """A float64 array of real numbers with so many axes; NaN and infinity may be among them.

    Raises:
        TypeError, ValueError: not real numbers, masked ones, or other axes.
    """
    if np.ma.is_masked(value):
        check_kinds(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise TypeError(f"{name}: expected real numbers; got a ragged sequence.") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers; got dtype {array.dtype}.")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes; got shape {array.shape}.")
    return array.astype(np.float64)


def check_array(name: str, value: Any, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """A finite float64 array of the given shape, None standing for any positive length.

    Raises:
        TypeError, ValueError: anything else.
    """
    array = read_numbers(name, value)
    fits = array.ndim == len(shape) and all(
        size is None or size == got for size, got in zip(shape, array.shape, strict=True)
    )
    if not fits or array.size == 0:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), not empty; got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity.")
    return array


def check_shapes(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the arrays among a node's fields have these shapes."""
    for name, shape in shapes.items():
        got = getattr(node, name).shape
        if got != shape:
            raise ValueError(f"{name}: expected shape {shape}; got {got}.")


def check_weights(name: str, value: Any, size: int | None = None) -> Float[np.ndarray, " k"]:
    """Positive weights that sum to 1 within 1e-9, rescaled so that they sum to 1 in float64.

    Raises:
        TypeError, ValueError: anything else.
    """
    weights = check_array(name, value, (size,))
    if np.any(weights <= 0):
        raise ValueError(f"{name}: expected numbers > 0; got {weights.min()}.")
    total = float(weights.sum())
    if abs(total - 1.0) > 1e-9:
        raise ValueError(f"{name}: expected a sum of 1 within 1e-9; got {total}.")
    return weights / total


def check_points(name: str, value: Any, dim: int) -> Float[np.ndarray, "n dim"]:
    """Points (n, dim) in float64.

    Raises:
        TypeError, ValueError: anything else.
    """
    return check_array(name, value, (None, dim))


def check_rows(
    name: str, rows: Any, dim: int | None = None, least: int = 1
) -> Float[np.ndarray, "n d"]:
    """Rows, of a data frame too, as a finite float64 array (n, dim), n >= least.

    Raises:
        TypeError, ValueError: no real numbers, another shape, too few rows, NaN or infinity.
    """
    check_kinds(name, rows)
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
