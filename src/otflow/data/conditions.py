"""Conditions of a conditional flow, checked."""

from typing import Any

import numpy as np
from jaxtyping import Float

from otflow.support.frames import check_kinds, check_names, names_of, text_columns


def check_condition(
    condition: Any,
    n: int,
    k: int | None = None,
    names: tuple[str, ...] | None = None,
    name: str = "condition",
) -> Float[np.ndarray, "n k"]:
    """A condition as a finite float64 array, one row for each of n points.

    Args:
        condition: an array, a list or a data frame: shape (n, k); where k is known, also (k,), one
            condition for all points. One column may be (n,), and one number is one condition of it.
        n: points.
        k: columns of the condition that was fitted on; None while fitting.
        names: names of its columns, where it had some; a frame must have the same.
        name: of the argument, for messages.

    Raises:
        ValueError: missing, another shape, no numbers, NaN or infinity, other columns.
    """
    shapes = f"({n}, k)" if k is None else f"({n}, {k}) or ({k},)"
    if condition is None:
        raise ValueError(f"{name}: expected shape {shapes}; got none.")
    found = names_of(condition)
    check_names(name, condition, names)
    check_kinds(name, condition, "c")
    try:
        values = np.asarray(condition, np.float64)
    except (ValueError, TypeError) as error:
        told = ", ".join(filter(None, text_columns(condition, "c")))
        raise ValueError(
            f"{name}: expected numbers; got {f'text in {told}' if told else 'others'}: encode "
            "categories as one-hot columns."
        ) from error
    if k == 1 and values.ndim == 0:
        values = values.reshape(1)
    if k is not None and values.shape == (k,):
        values = np.tile(values, (n, 1))
    elif k in (None, 1) and values.shape == (n,):
        values = values[:, None]
    good = values.ndim == 2 and len(values) == n and values.shape[1] > 0
    if not good or (k is not None and values.shape[1] != k):
        raise ValueError(f"{name}: expected shape {shapes}; got {values.shape}.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if bad.size:
        named = [(found or [f"c{j}" for j in range(values.shape[1])])[j] for j in bad]
        raise ValueError(
            f"{name}: expected finite numbers; got NaN or infinity in {', '.join(named)}."
        )
    return values


def refuse_condition(condition: Any, name: str = "condition") -> None:
    """Raise ValueError where a condition is given for rows that have none."""
    if condition is not None:
        raise ValueError(f"{name}: expected none, there is nothing it belongs to; got one.")
