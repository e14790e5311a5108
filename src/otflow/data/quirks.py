"""What columns may hold that a density does not like: few values, rounding, point masses, tails."""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from otflow.data.columns import heavy_tailed, rounding_step
from otflow.data.preprocessing import ColumnMap

_FEW = 10  # distinct values: a category rather than a number
_MASS = 0.05  # share of the rows on one value
_LEAST = 20  # rows on it
_MOST_ROWS, _MOST_NAMED = 2**17, 8  # looked at, told


def warn_of_quirks(X: Float[np.ndarray, "n d"], names: Sequence[str], columns: ColumnMap) -> None:
    """A UserWarning for every kind of quirk."""
    for told in quirks(X, names, columns):
        warnings.warn(f"X: {told}.", UserWarning, stacklevel=4)


def quirks(
    X: Float[np.ndarray, "n d"], names: Sequence[str], columns: ColumnMap
) -> tuple[str, ...]:
    """One sentence a kind, naming the columns and the option that mends them.

    Args:
        X: rows in the data's own units.
        names: of the columns.
        columns: those that it rounds are not looked at, and of those that it maps not the tails.
    """
    X = X[:: max(1, len(X) // _MOST_ROWS)]
    found: dict[str, list[str]] = {}
    for j in np.flatnonzero(np.array(columns.step) == 0).tolist():
        kind = _kind(X[:, j])
        if kind is not None and (kind[0] != "tail" or columns.unbounded[j]):
            found.setdefault(kind[0], []).append(names[j] + kind[1])
    return tuple(
        f"column(s) {_listed(found[kind])} {told}" for kind, told in _TOLD.items() if kind in found
    )


_TOLD = {
    "few": (
        f"hold {_FEW} values or fewer: a density puts a spike on each; give them to `condition`, "
        "or dequantize='auto'"
    ),
    "rounded": "are integers or rounded: a density puts a spike on each value; dequantize='auto'",
    "mass": (
        "have many rows on one value: that has no density; leave these rows out, or say in a "
        "column of `condition` which they are"
    ),
    "tail": (
        "have very heavy tails, easier to fit with arcsinh='auto', or by their logarithm (bounds "
        "with one end)"
    ),
}


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _kind(x: Float[np.ndarray, " n"]) -> tuple[str, str] | None:
    """The kind, and the figure behind it."""
    values, counts = np.unique(x, return_counts=True)
    if len(values) < 2:
        return None
    if len(values) <= _FEW and len(x) >= 2 * _FEW:
        return "few", f" ({len(values)} values)"
    if step := rounding_step(x):
        return "rounded", f" (step {step:g})"
    most = int(counts.argmax())
    if counts[most] >= max(_LEAST, _MASS * len(x)):
        return "mass", f" ({counts[most] / len(x):.0%} at {values[most]:g})"
    return ("tail", "") if heavy_tailed(x) else None
