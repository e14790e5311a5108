"""What columns may hold that a density does not like: few values, rounding, point masses, tails."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from otflow.data.columns import far_out, rounding_step
from otflow.data.preprocessing import ColumnMap

_FEW = 10  # distinct values: a category rather than a number
_MASS = 0.05  # share of the rows on one value
_LEAST = 20  # rows on it
_ALONE = 0.9  # share of the rows far out on one value: a sign for what is missing, -999
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
        columns: of those that it rounds only values far from all others are told, and of those
            that it maps not the tails.
    """
    X = X[:: max(1, len(X) // _MOST_ROWS)]
    found: dict[str, list[str]] = {}
    for j, step in enumerate(columns.step):
        for kind, figure in _kinds(X[:, j], rounded=step > 0):
            if kind != "tail" or columns.unbounded[j]:
                found.setdefault(kind, []).append(names[j] + figure)
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
        "have very heavy tails, easier to fit with arcsinh='auto', or where they have an end by "
        "their logarithm, bounds={name: (0, None)}"
    ),
}


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _kinds(x: Float[np.ndarray, " n"], rounded: bool) -> Iterator[tuple[str, str]]:
    """The kinds, each with the figure behind it; `rounded`: the fit knows of its steps."""
    values = np.unique(x)
    if len(values) < 2:
        return
    if len(values) <= _FEW and len(x) >= 2 * _FEW:
        if not rounded:
            yield "few", f" ({len(values)} values)"
        return
    step = 0.0 if rounded else rounding_step(x)
    if step:
        yield "rounded", f" (step {step:g})"
    continuous, far = not (rounded or step), far_out(x)
    told = _mass(x[far], len(x), _ALONE * far.sum())
    if continuous and not told:
        told = _mass(x, len(x), _MASS * len(x))
    if told:
        yield "mass", told
    elif continuous and far.any():
        yield "tail", " (all above 0)" if x.min() > 0 else ""


def _mass(x: Float[np.ndarray, " k"], n: int, least: float) -> str:
    """The value that most of x share, if so many do; x are some of n rows."""
    values, counts = np.unique(x, return_counts=True)
    most = int(counts.argmax()) if len(values) else 0
    if not len(values) or counts[most] < max(_LEAST, least):
        return ""
    return f" ({100 * counts[most] / n:.3g}% at {values[most]:g})"
